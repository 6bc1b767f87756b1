"""EMR-Merging: elect one vector for all tasks, mask and rescale it for each.

Huang et al., "EMR-Merging: Tuning-Free High-Performance Model Merging", NeurIPS 2024,
arXiv:2405.17461. The elected sign of an entry is that of the sum of the task vectors, negative
where the sum is 0; the unified vector has that sign and the largest magnitude among the task
vectors that agree. The mask of a task holds where it agrees; its rescaler is
``sum |tau_t| / sum |m_t unified|`` over all entries of the model, 1 for a task that did not move.
The paper has no weights: here they multiply the task vectors.
"""

from __future__ import annotations

import operator
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breadcrumbs.kernels.constants import LARGEST
from breadcrumbs.methods import (
    Elementwise,
    Entries,
    Everything,
    Extent,
    Fold,
    Method,
    Total,
    Values,
    WhichModel,
)


def elected(entries: Entries) -> tuple[np.ndarray, np.ndarray]:
    """Return the unified vector (n,), and where each task agrees with it (T, n)."""
    terms = entries.terms
    signs = np.where(entries.kernels.exact_sum(terms) > 0, 1.0, -1.0)
    agree = terms * signs > 0
    return signs * np.where(agree, np.abs(terms), 0.0).max(axis=0, initial=0.0), agree


def unified(entries: Entries) -> np.ndarray:
    """Return the unified vector (n,), whose zeros are positive here."""
    return entries.kernels.elected(entries.taus, entries.weights, LARGEST, -1, False)


def agrees(term: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return where a task agrees with the unified vector."""
    return ((term > 0) & (vector > 0)) | ((term < 0) & (vector < 0))


@dataclass
class Norms:
    """The L1 norm of a task vector, and of what its mask leaves of the unified vector."""

    before: Total = field(default_factory=Total)
    after: Total = field(default_factory=Total)

    def add(self, term: np.ndarray, unified: np.ndarray, agree: np.ndarray) -> None:
        """Add some entries."""
        self.before.add(np.abs(term))
        self.after.add(np.abs(unified[agree]))

    def __iadd__(self, other: Norms) -> Norms:
        self.before += other.before
        self.after += other.after
        return self

    @property
    def rescaler(self) -> float:
        after = float(self.after)
        return float(self.before) / after if after else 1.0


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, float]:
    """Return the rescaler of the task."""

    def scan(entries: Entries) -> Norms:
        norms, row = Norms(), list(entries.who).index(values["task"])
        term, vector = entries.weights[row] * entries.taus[row], unified(entries)
        norms.add(term, vector, agrees(term, vector))
        return norms

    norms = yield Fold(scan, operator.iadd, Norms)
    return norms.rescaler


def _combine(entries: Entries, values: Values) -> np.ndarray:
    vector = unified(entries)
    if values["task"] is None:
        return vector
    row = list(entries.who).index(values["task"])
    term = entries.weights[row] * entries.taus[row]
    return entries.known * np.where(agrees(term, vector), vector, 0.0)


def caution(values: Values, models: int) -> str:
    """Return a warning where the elected vector alone is asked for."""
    if values.get("task") is not None or models < 2:
        return ""
    return (
        "emr without a task is the elected vector alone, which may do worse than the base: the"
        " paper masks and rescales it for one task. Give task, a model's name, or another method"
    )


EMR = Elementwise(
    combine=_combine,
    parameters={"task": WhichModel(False, "the model to rebuild; without it, the unified one")},
    prepare=_prepare,
    passes=lambda values: int(values.get("task") is not None),
)

METHOD = Method(
    "emr",
    Everything(),
    EMR,
    "elect one vector for all tasks; with a task, mask and rescale it for that one",
    "base + U, U = s max{|w_t tau_t|: sign(tau_t) = s}, s = sign(sum_t w_t tau_t); with a"
    " task, base + r_t * m_t * U, m_t = [sign(tau_t) = s], r_t = |tau_t|_1 / |m_t U|_1",
    "Huang et al., EMR-Merging, NeurIPS 2024, arXiv:2405.17461",
    "A sum of 0 is negative. The rescaler is of the whole model; the authors' program adds"
    " up the means of the tensors instead. A task takes a pass more.",
    caution,
)
