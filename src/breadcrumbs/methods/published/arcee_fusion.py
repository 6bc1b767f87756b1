"""Arcee Fusion: keep the changes that matter most, by their size and how their row's softmax moves.

Arcee, 2024, as mergekit has it: ``|tau| KL(softmax(row) + 1e-8, softmax(base row) + 1e-8)``, rows
along the last axis, is how much an entry matters; what is at least the median plus 1.5 times the
distance of the quartiles stays. Quartiles are the values at the ranks ``floor(q (n - 1))``.

mergekit has float32, in which a divergence below 1e-7 is noise: that of most fine-tunings; and
takes quartiles of a random million of larger tensors. Here all is float64, all entries count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from breadcrumbs.methods import Everything, Factor, Method, Values, Whole, sphere

#: Added to each share of a softmax.
TINY = 1e-8
#: Entries of rows that are looked at together.
AT_ONCE = 1 << 16


def divergence(model: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return the divergence (..., 1) of the softmax of each row from that of the base's."""

    def shares(rows: np.ndarray) -> np.ndarray:
        found = np.exp(rows - rows.max(axis=-1, keepdims=True))
        return found / found.sum(axis=-1, keepdims=True) + TINY

    p, q = shares(model), shares(base)
    return np.sum(p * np.log(p / q), axis=-1, keepdims=True)


def importances(base: np.ndarray, tau: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield how much the entries of some rows (r, n) matter, of a tensor as a matrix of rows."""
    step = max(1, AT_ONCE // max(1, base.shape[1]))
    for first in range(0, len(base), step):
        at = slice(first, first + step)
        moved = divergence(base[at] + tau[at], base[at])
        yield at, np.abs(tau[at]) * moved


def threshold(importance: np.ndarray) -> float:
    """Return the median plus 1.5 times the distance of the quartiles. It is put out of order."""
    last = importance.size - 1
    ranks = [last // 4, last // 2, 3 * last // 4]
    importance.partition(ranks)
    low, middle, high = importance[ranks]
    return float(middle + 1.5 * (high - low))


def combine(
    base: np.ndarray, taus: np.ndarray, weights: Sequence[float], values: Values
) -> np.ndarray:
    """Return the task vector where it matters, else 0; what matters is found twice, not held."""
    sphere.unweighted("arcee_fusion", weights, "Leave it out, or give alpha.")
    if not len(taus) or not base.size:
        return np.zeros(base.shape)
    (tau,) = taus
    rows = base.reshape(-1, base.shape[-1] if base.ndim else 1)
    mine, matters = tau.reshape(rows.shape), np.empty(rows.shape)
    for at, importance in importances(rows, mine):
        matters[at] = importance
    least = threshold(matters.reshape(-1))
    del matters
    for at, importance in importances(rows, mine):
        mine[at][~(importance >= least)] = 0.0
    return mine.reshape(tau.shape)


ARCEE_FUSION = Whole(
    combine=combine,
    parameters={"alpha": Factor(1.0, "factor of what is kept")},
    models=(1, 1),
    base=lambda values: True,
    memory=lambda shape, models: 1.0 * math.prod(shape),
    alone="arcee_fusion cuts by itself",
)

METHOD = Method(
    "arcee_fusion",
    Everything(),
    ARCEE_FUSION,
    "keep the changes of one model that matter most, by size and by how their row moves",
    "base + alpha * [i >= median i + 1.5 (upper - lower quartile of i)] * tau,"
    " i = |tau| KL(softmax(model row), softmax(base row))",
    "Arcee Fusion, 2024; as mergekit has it",
    "Of one tensor. In float32, as in mergekit, divergences of small steps are noise.",
)
