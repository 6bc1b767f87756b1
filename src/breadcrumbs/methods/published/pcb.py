"""PCB-Merging: average the task vectors by how each entry competes with all others.

Du et al., "Parameter Competition Balancing for Model Merging", NeurIPS 2024, arXiv:2410.02396.
With ``a`` = |tau_t| clamped to its values at the ranks ``floor(edge N)`` and
``floor((1 - edge) N) - 1`` of the model: intra-balancing ``exp(T min_max(a)^2)``, inter-balancing
``tanh(tau_t sum tau)``; their product, clamped below at its value of rank ``floor((1 - ratio) N)``
and stretched to [0, 1], is the score ``s_t``. The step is
``sum(sign(tau) a s) / max(sum s, 1e-12)``. The paper has no weights: here they multiply the task
vectors.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    VALUES,
    Cut,
    Elementwise,
    Entries,
    Everything,
    Extent,
    Factor,
    Fold,
    Fraction,
    Method,
    Values,
    count,
    difference,
    select,
)


@dataclass(frozen=True)
class Range:
    """Of each model: the ends of its magnitudes, and of its scores before stretching."""

    low: Sequence[float]
    high: Sequence[float]
    floor: Sequence[float]
    ceiling: Sequence[float]

    def contenders(
        self, entries: Entries, row: int, sums: np.ndarray, bound: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where a model's products are not less than a bound, and terms and products there.

        Products are of intra- and inter-balancing, times ``exp(-T)``, which nothing depends on.
        Some that are less than the bound may be there too. sums: of the terms of all models.
        """
        places, terms, exponents, balances = entries.kernels.contend(
            entries.taus[row],
            float(entries.weights[row]),
            sums,
            self.low[row],
            self.high[row],
            len(entries.taus),
            bound,
        )
        return places, terms, np.exp(exponents) * np.tanh(balances)

    def sizes(self, row: int, terms: np.ndarray) -> np.ndarray:
        return np.clip(np.abs(terms), self.low[row], self.high[row])

    def scores(self, row: int, products: np.ndarray) -> np.ndarray:
        """Return products stretched to [0, 1]: 0 at the floor, and where nothing is between."""
        floor, spread = self.floor[row], self.ceiling[row] - self.floor[row]
        if spread <= 0:
            return np.zeros(products.size)
        return (np.maximum(products, floor) - floor) / spread


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, Range]:
    n, edge, ratio = extent.size, values["edge"], values["ratio"]
    first = min(count(edge, n), n - 1)
    last = max(count(difference(1, edge), n) - 1, 0)

    def found(part: list[list[Cut]]) -> list[list[float]]:
        return [[mine[i].value for mine in part] for i in range(2)]

    both = [[first, last]] * extent.models
    low, high = found((yield from select(_sizes, extent, both, places=False)))
    known = Range(low, high, [], [])

    rank = min(count(difference(1, ratio), n), n - 1)
    both = [[rank, n - 1]] * extent.models

    def above(entries: Entries, bounds: Sequence[float]) -> list:
        sums = entries.kernels.exact_sum(entries.taus, entries.weights)
        mine = [known.contenders(entries, t, sums, bound) for t, bound in enumerate(bounds)]
        return [(places, products) for places, _, products in mine]

    def products(entries: Entries) -> np.ndarray:
        return np.array([row for _, row in above(entries, [-math.inf] * extent.models)])

    low, high = found((yield from select(products, extent, both, places=False, above=above)))
    return replace(known, floor=low, ceiling=high)


def _sizes(entries: Entries) -> np.ndarray:
    sizes = np.abs(entries.taus)
    if (entries.weights != 1).any():
        sizes *= np.abs(entries.weights)[:, None]
    return sizes


def _combine(entries: Entries, values: Values) -> np.ndarray:
    known, kernels, n = entries.known, entries.kernels, entries.taus.shape[1]
    sums = kernels.exact_sum(entries.taus, entries.weights)
    where, scores, parts = [], [], []
    for row in range(len(entries.taus)):  # elsewhere the score is 0
        places, terms, products = known.contenders(entries, row, sums, known.floor[row])
        mine = known.scores(row, products)
        where.append(places)
        scores.append(mine)
        parts.append(np.sign(terms) * known.sizes(row, terms) * mine)
    share = kernels.exact_at(n, where, scores)
    return kernels.exact_at(n, where, parts) / np.maximum(share, 1e-12)


PCB = Elementwise(
    combine=_combine,
    parameters={
        "ratio": Fraction("0.1", "fraction of the entries of a model that compete"),
        "edge": Fraction("0.0001", "fraction of magnitudes clamped at each end"),
        "alpha": Factor(1.2, "factor of the balanced task vector"),
    },
    models=(1, None),
    prepare=_prepare,
    passes=lambda values: 2 * VALUES,
    name="pcb",
)

METHOD = Method(
    "pcb",
    Everything(),
    PCB,
    "average the task vectors entry by entry, by how each competes with all others",
    "base + alpha * sum_t sign(tau_t) a_t s_t / max(sum_t s_t, 1e-12), s_t = min-max of the"
    " top `ratio` of exp(T minmax(a_t)^2) tanh(tau_t sum tau), a_t = |tau_t| without edges",
    "Du et al., Parameter Competition Balancing, NeurIPS 2024, arXiv:2410.02396",
    "Ranks are of the whole model, which is read three times, a few more where a sample misleads.",
)
