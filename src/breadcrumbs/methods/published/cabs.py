"""CABS: n:m pruning of one task vector after the other, none over another.

Yang et al., "CABS: Conflict-Aware and Balanced Sparsification for Enhancing Model Merging", ICML
2025, arXiv:2503.01874.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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


def combine(
    base: np.ndarray, taus: np.ndarray, weights: Sequence[float], values: Values
) -> np.ndarray:
    """Return the sum of the task vectors, each in its own entries: the order of models matters.

    Of each ``m`` entries in C order a model has the ``n`` of largest ``|tau|`` among those that no
    earlier model has, or what is left of them; of a last block of ``b < m`` entries
    ``floor(n b / m)`` (the published program drops it). Tensors of any shape, or their entries in
    C order from the beginning of a block on. A weight, as there, multiplies the task vector; it
    changes no ranks.

    Magnitudes are compared in float64. Of models in float32, two that are equal as float32
    differences rank here by what float32 loses.
    """
    n, m = values["n"], values["m"]
    whole = base.size // m * m
    step = np.zeros(base.size)
    free = np.ones(base.size, bool)
    for tau, weight in zip(taus.reshape(len(taus), base.size), weights, strict=True):
        if weight == 0:
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
    return step.reshape(base.shape)


def caution(values: Values, models: int) -> str:
    """Return a warning where the first models leave no places for the last."""
    n, m = values["n"], values["m"]
    if n * models <= m:
        return ""
    fair = f"n={m // models}" if m >= models else f"m={models}, n=1"
    return (
        f"cabs: {models} models cannot have {n} of {m} entries each, so the last are left with what"
        f" the first do not take, and the result may do worse than the base. Give {fair}"
    )


CABS = Whole(
    combine=combine,
    parameters={
        "n": Integer(64, 0, "entries that each model keeps per block"),
        "m": Integer(256, 1, "entries of a block"),
        "alpha": Real(1.0, "factor of the sum of the pruned task vectors"),
    },
    run=lambda values: values["m"],
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
    "n and m are searched in the paper; 64 of 256 is not checked against it, and has places"
    " for four models: with more, give n below m / T.",
    caution,
)
