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

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.kernels.protocol import Kernels
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
    """Of each model (T, 1): the ends of its magnitudes, and of its scores before stretching."""

    low: np.ndarray
    high: np.ndarray
    floor: np.ndarray
    ceiling: np.ndarray

    def sizes(self, terms: np.ndarray) -> np.ndarray:
        return np.clip(np.abs(terms), self.low, self.high)

    def products(self, terms: np.ndarray, kernels: Kernels) -> np.ndarray:
        """Return intra- times inter-balancing, all times ``exp(-T)``, which nothing depends on."""
        share = _stretched(self.sizes(terms), np.minimum(self.low, self.high), self.high)
        return np.exp(len(terms) * (share * share - 1)) * np.tanh(terms * kernels.exact_sum(terms))

    def scores(self, terms: np.ndarray, kernels: Kernels) -> np.ndarray:
        return _stretched(
            np.maximum(self.products(terms, kernels), self.floor), self.floor, self.ceiling
        )


def _stretched(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return ``x`` from low to high stretched to [0, 1]; 0 where there is nothing between."""
    spread = high - low
    return np.where(spread > 0, (x - low) / np.where(spread > 0, spread, 1.0), 0.0)


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, Range]:
    n, edge, ratio = extent.size, values["edge"], values["ratio"]
    first = min(count(edge, n), n - 1)
    last = max(count(difference(1, edge), n) - 1, 0)

    def found(part: list[list[Cut]]) -> np.ndarray:
        return np.array([[cut.value for cut in cuts] for cuts in part]).reshape(-1, 2, 1)

    both = [[first, last]] * extent.models
    ends = found((yield from select(lambda it: np.abs(it.terms), extent, both, places=False)))
    zero = np.zeros((extent.models, 1))
    known = Range(ends[:, 0], ends[:, 1], zero, zero)

    rank = min(count(difference(1, ratio), n), n - 1)
    both = [[rank, n - 1]] * extent.models

    def products(it: Entries) -> np.ndarray:
        return known.products(it.terms, it.kernels)

    ends = found((yield from select(products, extent, both, places=False)))
    return Range(known.low, known.high, ends[:, 0], ends[:, 1])


def _combine(entries: Entries, values: Values) -> np.ndarray:
    known, terms, kernels = entries.known, entries.terms, entries.kernels
    scores = known.scores(terms, kernels)
    above = kernels.exact_sum(np.sign(terms) * known.sizes(terms) * scores)
    return above / np.maximum(kernels.exact_sum(scores), 1e-12)


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
    "Ranks are of the whole model. Reads it up to 9 times, so it is slow.",
)
