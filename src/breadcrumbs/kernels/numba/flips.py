"""Entries changed in place by exclusive or, of which a second time undoes the first.

``weights`` and ``flips`` are unsigned integers: the bits of weights, and which of them differ.
"""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def flip_masked(weights, flips, packed):
    """Flip the weights (n,) whose bit is set. packed: (n / 8,), eight weights a byte, the first in
    the highest bit; what it says of weights beyond the last is not looked at."""
    zero = weights.dtype.type(0)
    whole = len(weights) // 8
    for k in range(whole):
        byte = int(packed[k])
        first = 8 * k
        for j in range(8):
            held = zero - weights.dtype.type((byte >> (7 - j)) & 1)  # all ones, or all zeros
            weights[first + j] ^= flips[first + j] & held
    for j in range(8 * whole, len(weights)):
        held = zero - weights.dtype.type((int(packed[whole]) >> (7 - j % 8)) & 1)
        weights[j] ^= flips[j] & held


@njit(nogil=True, cache=True)
def flip_at(weights, places, flips):
    """Flip the weights at ``places`` (k,), each another, by ``flips`` (k,)."""
    for i in range(len(places)):
        weights[places[i]] ^= flips[i]
