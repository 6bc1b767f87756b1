"""Keep the leading singular triplets of each matrix of a task vector; other tensors stay.

As many as hold ``energy`` of the sum of the squares, or ``rank`` of them.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import algebra
from breadcrumbs.methods.aggregates.singular import leading, triplets
from breadcrumbs.methods.parameters import Fraction, Integer, Values
from breadcrumbs.methods.transforms import Shaped


def low_rank(tau: np.ndarray, values: Values) -> np.ndarray:
    """Return the matrix ``(m, n)`` of the leading triplets."""
    rank = values.get("rank")
    if rank is None:
        u, s, v = triplets(tau)
        held = np.cumsum(s * s)
        rank = int(np.count_nonzero(held < float(values["energy"]) * held[-1:].sum())) + 1
        u, s, v = u[:, :rank], s[:rank], v[:rank]
    else:
        u, s, v = leading(tau, rank)
    return algebra.product(u * s, v)


def _check(given: Values) -> Values:
    if {"rank", "energy"} <= set(given):
        raise RecipeError("low_rank: rank and energy are two ways to say one thing. Give one.")
    return given


LOW_RANK = Shaped(
    low_rank,
    {
        "rank": Integer(None, 1, "singular triplets kept of a matrix, instead of energy"),
        "energy": Fraction("0.9", "share of the squares of singular values that is kept"),
    },
    check=_check,
    algebra=True,
    name="low_rank",
)
