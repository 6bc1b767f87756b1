"""Entries changed in place by exclusive or, of which a second time undoes the first, in NumPy.

``weights`` and ``flips`` are unsigned integers: the bits of weights, and which of them differ.
"""

from __future__ import annotations

import numpy as np

#: Entries whose bits are spread out at once; a multiple of 8.
PART = 1 << 16


def flip_masked(weights: np.ndarray, flips: np.ndarray, packed: np.ndarray) -> None:
    """Flip the weights (n,) whose bit is set. packed: (n / 8,), eight weights a byte, the first in
    the highest bit; what it says of weights beyond the last is not looked at."""
    for start in range(0, weights.size, PART):
        mine = weights[start : start + PART]
        bits = np.unpackbits(packed[start // 8 : (start + PART) // 8], count=mine.size)
        mine ^= np.where(bits, flips[start : start + PART], weights.dtype.type(0))


def flip_at(weights: np.ndarray, places: np.ndarray, flips: np.ndarray) -> None:
    """Flip the weights at ``places`` (k,), each another, by ``flips`` (k,)."""
    weights[places] ^= flips
