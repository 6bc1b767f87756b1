"""Exact sums as pairs of float64: the rounded sum, and what that leaves out.

A sum is ``total + rest`` with ``total`` the sum rounded to float64. The sum of the terms is one
number, whatever their order, and so is such a pair of it: taking out the terms that were put in
gives the same bits as never having put them in. Where a sum needs more bits than the two hold, the
rest is NaN, and stays so until the sum is made from all of its terms again.
"""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.kernels.exact import two_sum


def terms(values: np.ndarray, base: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ``weight * (values - base)`` in two float64 terms, as a merge has them."""
    x = values.astype(np.float64)
    tau = x - base
    return weight * tau, weight * two_sum(x, -base, tau)


def add(at: np.ndarray | slice, first: np.ndarray, second: np.ndarray, total, rest) -> None:
    """Add terms at positions ``at``, of which none is there twice, to pairs."""
    before, more = total[at], rest[at]
    sum_ = before + first
    error = two_sum(before, first, sum_)
    middle = more + error
    inexact = two_sum(more, error, middle) != 0.0  # NaN is not 0 either
    left = middle + second
    inexact |= two_sum(middle, second, left) != 0.0
    nearest = sum_ + left
    left = two_sum(sum_, left, nearest)
    left[inexact] = np.nan
    total[at], rest[at] = nearest, left


def of_terms(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (total, rest, exact) of the sums over the first axis of terms (T, n).

    rest is rounded where exact is false.
    """
    n = columns.shape[1]
    total, rest, exact = np.zeros(n), np.zeros(n), np.ones(n, np.bool_)
    for i, column in enumerate(columns.T.tolist()):
        total[i] = math.fsum(column)
        rest[i] = math.fsum([*column, -total[i]])
        exact[i] = math.fsum([*column, -total[i], -rest[i]]) == 0.0
    return total, rest, exact
