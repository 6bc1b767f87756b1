"""Small sums without a rounding error: of two numbers, and of the weights of some models."""

from __future__ import annotations

import math

import numpy as np


def two_sum(a, b, total):
    """Return the rounding error of ``total = a + b``, exactly (Knuth)."""
    back = total - a
    return (a - (total - back)) + (b - back)


def shares(weights: np.ndarray, signed: bool) -> np.ndarray:
    """Return, of each set of models as the bits of a number, what their mean divides by.

    signed: whether that is the sum of their weights, and not of the magnitudes.
    """
    mine = weights if signed else np.abs(weights)
    sets = range(1 << len(mine))
    return np.array(
        [math.fsum(w for t, w in enumerate(mine.tolist()) if bits >> t & 1) for bits in sets]
    )
