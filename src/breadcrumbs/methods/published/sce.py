"""SCE: select entries by variance, calculate weights from energies, erase the minority's sign.

Wan et al., "FuseChat: Knowledge Fusion of Chat Models", 2024, arXiv:2408.07990. Of one tensor, of
any shape. The energy of a model is its sum of squares after selection, which is of the fraction
``density`` of the entries of largest variance over the models, among those whose variance is not 0;
equal variances rank by position, the later entry as the larger. The authors' program selects for
the weights alone and adds all entries (``adds: all``); mergekit adds the selected. An entry that no
model has with the elected sign (+ where the sum is 0) is 0. Equal energies are taken if all are 0,
or their means over the entries sum to less than ``guard``: 1e-6 in mergekit, where most
fine-tunings are below, here 0; nor is an entry divided by less. Neither has other weights: here
they multiply the task vectors.

All sums are exact, rounded once, so that they depend on no order: energies those of the rounded
squares.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    COUNTS,
    PLACES,
    Cut,
    Elementwise,
    Entries,
    Everything,
    Extent,
    Fold,
    Fraction,
    Method,
    OneOf,
    Real,
    Total,
    Values,
    count,
    floored,
    select,
)


@dataclass(frozen=True)
class Known:
    """Of a tensor the first entry that is selected, if not all are, and the share of each model."""

    cut: Cut | None
    shares: np.ndarray


@dataclass
class Energy:
    """A sum of squares. beyond: whether one is more than float64 holds."""

    total: Total = field(default_factory=Total)
    beyond: bool = False

    def add(self, values: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            squares = values * values
        if squares.max(initial=0.0) < math.inf:
            self.total.add(squares)
        else:
            self.beyond = True

    def __iadd__(self, other: Energy) -> Energy:
        self.total += other.total
        self.beyond |= other.beyond
        return self

    def __float__(self) -> float:
        try:
            return math.inf if self.beyond else float(self.total)
        except OverflowError:
            return math.inf


def variance(entries: Entries) -> np.ndarray:
    """Return T squared times the variances (n,) over the models; beyond float64 as infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = entries.kernels.variances(entries.taus, entries.weights)
    return np.nan_to_num(found, copy=False, nan=math.inf, posinf=math.inf)


def selected(entries: Entries, cut: Cut | None) -> np.ndarray:
    """Return the task vectors times their weights (T, n), 0 where they are not selected."""
    terms = entries.terms
    if cut is not None:
        terms[:, cut.before(entries.start, variance(entries))] = 0.0
    return terms


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, Known]:
    cut, density = None, values["density"]
    if not extent.models:
        return Known(None, np.zeros(0))
    if density < 1:
        changed = yield Fold(lambda it: int(np.count_nonzero(variance(it))), operator.add, int)
        mergekit = values["counts"] == "mergekit"
        number = floored(density, changed) if mergekit else count(density, changed)
        cuts = yield from select(lambda it: variance(it)[None], extent, [[extent.size - number]])
        cut = cuts[0][0]

    def scan(entries: Entries) -> list[Energy]:
        found = nothing()
        for energy, row in zip(found, selected(entries, cut), strict=True):
            energy.add(row)
        return found

    def join(known: list[Energy], found: list[Energy]) -> list[Energy]:
        return [operator.iadd(*pair) for pair in zip(known, found, strict=True)]

    def nothing() -> list[Energy]:
        return [Energy() for _ in range(extent.models)]

    energies = [float(energy) for energy in (yield Fold(scan, join, nothing))]
    whole = math.fsum(energies)
    if not whole or whole < values["guard"] * extent.size:
        energies = [1.0] * extent.models
    whole = math.fsum(energies)
    return Known(cut, np.array([energy / whole if energy else 0.0 for energy in energies]))


def _combine(entries: Entries, values: Values) -> np.ndarray:
    """Return the mean, weighted by energy, of the selected entries that have the elected sign."""
    if not len(entries.taus):
        return np.zeros(entries.taus.shape[1])
    shares, kernels = entries.known.shares, entries.kernels
    terms = selected(entries, entries.known.cut if values["adds"] == "selected" else None)
    positive = kernels.exact_sum(terms) >= 0
    agree = np.where(positive, terms > 0, terms < 0)
    over = kernels.exact_sum(np.where(agree, shares[:, None], 0.0))
    terms[~agree] = 0.0
    kept = kernels.exact_sum(terms, shares)
    over[over == 0] = 1
    np.maximum(over, values["guard"], out=over)
    return kept / over


SCE = Elementwise(
    combine=_combine,
    parameters={
        "density": Fraction("1", "fraction of entries kept, those with the largest variance"),
        "adds": OneOf(
            "selected",
            ("selected", "all"),
            "what is added: selected entries, or all, with the selection for the weights alone",
        ),
        "counts": COUNTS,
        "guard": Real(0.0, "mean energy below which models count alike; 1e-6 in mergekit"),
    },
    models=(1, None),
    prepare=_prepare,
    passes=lambda values: 1 if values["density"] == 1 else 2 + PLACES,
    by_tensor=True,
    sharp=True,
    name="sce",
)

METHOD = Method(
    "sce",
    Everything(),
    SCE,
    "select entries by variance, weight them by energy, drop minority signs",
    "base + sum_t e_t a_t tau_t / sum_t e_t a_t, e_t = |tau_t|^2 after selection, "
    "a_t = [tau_t has the sign of sum tau]",
    "Wan et al., FuseChat, 2024, arXiv:2408.07990",
)
