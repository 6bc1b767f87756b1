"""CABS: n:m pruning of one task vector after the other, none over another.

Yang et al., "CABS: Conflict-Aware and Balanced Sparsification for Enhancing Model Merging", ICML
2025, arXiv:2503.01874.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import Everything, Integer, Method, Real, Values, Whole

#: What ranks below all magnitudes.
USED = -1.0


def largest(sizes: np.ndarray, number: int) -> np.ndarray:
    """Return the mask of the ``number`` largest entries of each row that are not used.

    sizes: ``(rows, columns)``, `USED` where used. Equal ones rank by position, the later entry as
    the larger. All that is left, where that is less.
    """
    columns = sizes.shape[1]
    number = min(number, columns)
    if number == 0:
        return np.zeros(sizes.shape, bool)
    last = np.partition(sizes, columns - number, axis=1)[:, [columns - number]]
    mask = sizes > last
    equal = (sizes == last) & (last != USED)
    missing = number - np.count_nonzero(mask, axis=1, keepdims=True)
    crowded = np.count_nonzero(equal, axis=1, keepdims=True) > missing
    rows = np.flatnonzero(crowded)
    if rows.size:
        after = np.cumsum(equal[rows, ::-1], axis=1)[:, ::-1]
        equal[rows] &= after <= missing[rows]
    mask |= equal
    return mask


def places(values: Values, models: int) -> int:
    """Return how many entries of a block each model keeps: n, or as many as all can have.

    RecipeError where so many models cannot have so many.
    """
    n, m = values.get("n"), values["m"]
    fair = m // max(models, 1)
    if n is None and fair:
        return fair
    if n is None or n * models > m:
        instead = f"n={fair}, or leave n out" if fair else f"m={models} or more"
        raise RecipeError(
            f"cabs: {models} models cannot have {n or 1} of {m} entries each: the last would have"
            f" what the first leave. Give {instead}."
        )
    return n


def combine(
    base: np.ndarray, taus: np.ndarray, weights: Sequence[float], values: Values
) -> tuple[np.ndarray, list[int]]:
    """Return the sum of the task vectors, each in its own entries: the order of models matters.

    And how many entries each keeps. Of each ``m`` entries in C order a model has the ``n`` of
    largest ``|tau|`` among those that no earlier model has; of a last block of ``b < m`` entries
    ``floor(n b / m)`` (the published program drops it). Tensors of any shape, or their entries in C
    order from the beginning of a block on. A weight, as there, multiplies the task vector; it
    changes no ranks.

    Magnitudes are compared in float64. Of models in float32, two that are equal as float32
    differences rank here by what float32 loses.
    """
    m = values["m"]
    n = places(values, sum(weight != 0 for weight in weights))
    whole = base.size // m * m
    step, kept = np.zeros(base.size), []
    free = np.ones(base.size, bool)
    for tau, weight in zip(taus.reshape(len(taus), base.size), weights, strict=True):
        if weight == 0:
            kept.append(0)
            continue
        sizes = np.where(free, np.abs(tau), USED)
        mask = np.concatenate(
            [
                largest(sizes[:whole].reshape(-1, m), n).reshape(-1),
                largest(sizes[whole:].reshape(1, -1), n * (base.size - whole) // m).reshape(-1),
            ]
        )
        np.copyto(step, weight * tau, where=mask)
        free &= ~mask
        kept.append(int(np.count_nonzero(mask)))
    return step.reshape(base.shape), kept


CABS = Whole(
    combine=combine,
    parameters={
        "n": Integer(None, 0, "entries that each model keeps per block; m / models unless given"),
        "m": Integer(256, 1, "entries of a block"),
        "alpha": Real(1.0, "factor of the sum of the pruned task vectors"),
    },
    run=lambda values: values["m"],
    fits=lambda values, models: places(values, models),
    counts=True,
    svds="none",
    ordered=True,
    alone="cabs prunes by itself",
)

METHOD = Method(
    "cabs",
    Everything(),
    CABS,
    "prune task vectors n:m one after the other, without overlap (order matters)",
    "base + alpha * sum_t m_t weight_t tau_t, "
    "m_t = the n largest |tau_t| of each m entries that no earlier model has",
    "Yang et al., CABS, ICML 2025, arXiv:2503.01874",
    "n and m are searched in the paper; 256 is not checked against it. n is what gives every model"
    " its places, floor(m / T): 64 of 256 for four.",
)
