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
        norms.before.add(np.abs(entries.weights[row] * entries.taus[row]))
        norms.after.add(np.abs(entries.kernels.unify(entries.taus, entries.weights, row)))
        return norms

    norms = yield Fold(scan, operator.iadd, Norms)
    return norms.rescaler


def _combine(entries: Entries, values: Values) -> np.ndarray:
    given = entries.taus, entries.weights
    if values["task"] is None:
        return entries.kernels.unify(*given)
    return entries.known * entries.kernels.unify(*given, list(entries.who).index(values["task"]))


def caution(values: Values, models: int) -> str:
    """Return a warning where the elected vector alone is asked for."""
    if values.get("task") is not None or models < 2:
        return ""
    return (
        "emr without a task gives only the elected vector, which may do worse than the base: the"
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
    " up the means of the tensors instead. Giving a task takes one more pass.",
    caution,
)
