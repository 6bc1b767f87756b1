"""Bounds of magnitudes, as the bits of numbers: extents of weights, and cuts of all and of none.

A cut is what `protocol` says it is.
"""

from __future__ import annotations

import math

import numpy as np

#: The extent of no weights, as the fused kernels take it.
NO_EXTENT = (0xFFFFFFFF, 0)


def extent_of(pair: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    """Return the magnitudes whose bits are ``pair[0] + 1`` and ``pair[1]``, of raw weights.

    (inf, 0) of no weights.
    """
    if pair[1] == 0:
        return math.inf, 0.0
    bits = np.array([int(pair[0]) + 1, pair[1]], f"u{dtype.itemsize}")
    if dtype == np.uint16:
        wide = (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        wide = bits.view(dtype)
    return float(wide[0]), float(wide[1])


def everything(key_bytes: int) -> tuple[int, int, int, int]:
    """Return the cut that keeps every key of that many bytes."""
    return 0, 0, (1 << (8 * key_bytes - 1)) - 1, -1


def nothing(key_bytes: int) -> tuple[int, int, int, int]:
    """Return the cut that keeps no key of that many bytes."""
    return (1 << (8 * key_bytes - 1)) - 1, -1, 0, 0
