"""The steps of the compiled kernels: each one loop over one block of weights.

A block stays in the first-level cache, and only a loop that is a function of its own is vectorised
(the same loops nested in one function run four times slower). Numba keeps what it compiled by the
file of the kernel alone: after a change here delete ``__pycache__`` beside this file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from breadcrumbs.kernels.constants import ALL
from breadcrumbs.kernels.draws import FIRST, GOLDEN, SECOND

BLOCK = 2048
MAGNITUDE = np.uint32(0x7FFFFFFF)
MAGNITUDE64 = np.uint64(0x7FFFFFFFFFFFFFFF)
INFINITY = 0x7F800000

jit = njit(nogil=True, cache=True, error_model="numpy")
#: For what only calls steps: as a call of its own it would cost as much as a step.
inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


# --- steps: each one loop over one block -----------------------------------------------------


def _number(raw) -> Any:
    """Return one raw weight as float32."""


@overload(_number, inline="always")
def _number_kind(raw):
    if raw.bitwidth == 16:
        return lambda raw: np.uint32(np.uint32(raw) << np.uint32(16)).view(np.float32)
    return lambda raw: raw


@inline
def _two_sum(x, y):
    """Return the float64 nearest to ``x + y`` and, exactly, what it leaves out (Knuth)."""
    total = x + y
    back = total - x
    return total, (x - (total - back)) + (y - back)


@jit
def _widen(raw, out):
    for i in range(raw.size):
        out[i] = _number(raw[i])


@jit
def _magnitudes_and_counts(model, base, low, high, out):
    """Write |model - base|; return how many are below ``low`` and below ``high``."""
    below_low = np.uint32(0)
    below_high = np.uint32(0)
    for i in range(out.size):
        magnitude = abs(_number(model[i]) - base[i])
        out[i] = magnitude
        below_low += np.uint32(magnitude < low)
        below_high += np.uint32(magnitude < high)
    return below_low, below_high


@jit
def _magnitudes_and_count(model, base, low, out):
    """Write |model - base|; return how many are below ``low``."""
    below = np.uint32(0)
    for i in range(out.size):
        magnitude = abs(_number(model[i]) - base[i])
        out[i] = magnitude
        below += np.uint32(magnitude < low)
    return below


@jit
def _magnitudes(model, base, out):
    for i in range(out.size):
        out[i] = abs(_number(model[i]) - base[i])


@jit
def _count_equal(magnitudes, key):
    n = np.uint32(0)
    for i in range(magnitudes.size):
        n += np.uint32(magnitudes[i] == key)
    return np.int64(n)


@jit
def _mark(magnitudes, low, end, marks):
    for i in range(magnitudes.size):
        marks[i] = np.uint8((magnitudes[i] >= low) & (magnitudes[i] <= end))


@jit
def _mark_both(magnitudes, low, low_end, high, high_end, marks):
    for i in range(magnitudes.size):
        x = magnitudes[i]
        marks[i] = np.uint8((x >= low) & (x <= low_end)) | np.uint8((x >= high) & (x <= high_end))


@jit
def _collect(keys, words, out, n):
    """Append the marked keys, eight marks at a time; only count on once ``out`` is full."""
    for w in range(words.size):
        word = words[w]
        if word != 0:
            for j in range(8):
                if (word >> np.uint64(8 * j)) & np.uint64(1):
                    if n < out.size:
                        out[n] = keys[8 * w + j]
                    n += 1
    return n


@jit
def _add_between(model, base, first, last, total):
    """Add the differences whose magnitude is from ``first`` to ``last``."""
    for i in range(total.size):
        x = _number(model[i])
        magnitude = abs(x - base[i])
        tau = np.float64(x) - np.float64(base[i])
        total[i] += tau if (magnitude >= first) & (magnitude <= last) else 0.0


@jit
def _draw(key, first, limit, words):
    """Write words ``first`` and on of the stream of ``key``, or 0 where the limit keeps all."""
    if limit == ALL:
        words[:] = 0
        return
    for i in range(words.size):
        word = key + (np.uint64(first) + np.uint64(i) + np.uint64(1)) * GOLDEN
        word = (word ^ (word >> np.uint64(30))) * FIRST
        word = (word ^ (word >> np.uint64(27))) * SECOND
        words[i] = word ^ (word >> np.uint64(31))


@jit
def _count_drawn(draws, limit):
    n = np.uint32(0)
    for i in range(draws.size):
        n += np.uint32(draws[i] < limit)
    return np.int64(n)


@jit
def _add_drawn(model, base, draws, limit, total):
    for i in range(total.size):
        tau = np.float64(_number(model[i])) - np.float64(base[i])
        total[i] += tau if draws[i] < limit else 0.0


@jit
def _add_all(model, base, total):
    for i in range(total.size):
        total[i] += np.float64(_number(model[i])) - np.float64(base[i])


@jit
def _keep_between(magnitudes, first, last, keep):
    for i in range(keep.size):
        keep[i] = np.uint8((magnitudes[i] >= first) & (magnitudes[i] <= last))


@jit
def _keep_drawn(draws, limit, keep):
    for i in range(keep.size):
        keep[i] = np.uint8(draws[i] < limit)


@jit
def _add_pair(model, base, keep, weight, total, rest, inexact):
    """Add ``weight * (model - base)`` to ``total + rest``, rounding errors going to ``rest``."""
    for i in range(total.size):
        tau, lost = _two_sum(np.float64(_number(model[i])), -np.float64(base[i]))
        term = weight * tau if keep[i] else 0.0
        lost = weight * lost if keep[i] else 0.0
        total[i], error = _two_sum(total[i], term)
        middle, again = _two_sum(rest[i], error)
        rest[i], last = _two_sum(middle, lost)
        inexact[i] |= np.uint8(again != 0.0) | np.uint8(last != 0.0)


@jit
def _add_weighted(model, base, weight, total, rest):
    """Do as `_add_pair` where all is kept; return whether a sum is inexact."""
    inexact = False
    for i in range(total.size):
        tau, lost = _two_sum(np.float64(_number(model[i])), -np.float64(base[i]))
        total[i], error = _two_sum(total[i], weight * tau)
        rest[i], again = _two_sum(rest[i], error)
        inexact |= (lost != 0.0) | (again != 0.0)
    return inexact


@jit
def _merge(base, total, alpha, merged):
    for i in range(merged.size):
        merged[i] = np.float64(base[i]) + alpha * total[i]


@jit
def _settle(total, rest):
    """Make ``total`` the correctly rounded ``total + rest``, and ``rest`` what is left."""
    for i in range(total.size):
        total[i], rest[i] = _two_sum(total[i], rest[i])


@jit
def _merge_pair(base, total, rest, alpha, merged):
    for i in range(merged.size):
        nearest, lost = _two_sum(np.float64(base[i]), alpha * total[i])
        merged[i] = nearest + (lost + alpha * rest[i])


@jit
def _any(flags):
    found = np.uint8(0)
    for i in range(flags.size):
        found |= flags[i]
    return found != 0


@jit
def _count_unusual(merged):
    """Return how many are zero, or near the ends of the range of bfloat16."""
    n = np.uint64(0)
    for i in range(merged.size):
        magnitude = abs(merged[i])
        n += np.uint64((magnitude < 2.0**-125) | (magnitude > 2.0**127))
    return np.int64(n)


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc"})
def _squares(total):
    result = 0.0
    for i in range(total.size):
        result += total[i] * total[i]
    return result


@jit
def _narrow(merged, single):
    for i in range(merged.size):
        single[i] = np.float32(merged[i])


@jit
def _break_halfway(merged, single, bits):
    """Move what lies halfway between two bfloat16 only after rounding to the side it came from."""
    for i in range(bits.size):
        beyond = abs(merged[i]) - abs(np.float64(single[i]))
        outward = np.uint32(1) if beyond > 0.0 else np.uint32(0)
        inward = np.uint32(1) if beyond < 0.0 else np.uint32(0)
        halfway = (bits[i] & np.uint32(0xFFFF)) == np.uint32(0x8000)
        bits[i] = bits[i] + outward - inward if halfway else bits[i]


@jit
def _round_bfloat16(bits, out):
    for i in range(out.size):
        even = (bits[i] >> np.uint32(16)) & np.uint32(1)
        out[i] = np.uint16((bits[i] + np.uint32(0x7FFF) + even) >> np.uint32(16))


@jit
def _round_usual(doubles, out):
    """Round the bits of float64 to bfloat16, for results that are normal numbers of both."""
    for i in range(out.size):
        bits = doubles[i]
        even = (bits >> np.uint64(45)) & np.uint64(1)
        rounded = (bits & MAGNITUDE64) + np.uint64(0x0FFFFFFFFFFF) + even
        sign = np.uint16((bits >> np.uint64(48)) & np.uint64(0x8000))
        out[i] = sign | np.uint16((rounded >> np.uint64(45)) - np.uint64((1023 - 127) << 7))


@jit
def _round16(merged, single, out):
    """Round float64 to bfloat16 bits, once, whatever the numbers."""
    bits = single.view(np.uint32)
    _narrow(merged, single)
    _break_halfway(merged, single, bits)
    _round_bfloat16(bits, out)


def _round(merged, single, unusual, out):
    """Round float64 to bfloat16 bits or to float32, once."""


@overload(_round)
def _round_kind(merged, single, unusual, out):
    if out.dtype.bitwidth == 16:

        def round_(merged, single, unusual, out):
            if unusual:
                _round16(merged, single, out)
            else:
                _round_usual(merged.view(np.uint64), out)

    else:

        def round_(merged, single, unusual, out):
            _narrow(merged, out)

    return round_


@jit
def _extent16(raw, out):
    smallest = np.uint16(0xFFFF)
    largest = np.uint16(0)
    for i in range(raw.size):
        bits = np.uint16(raw[i] & np.uint16(0x7FFF))
        largest = max(largest, bits)
        smallest = min(smallest, np.uint16(bits - np.uint16(1)))
    out[0] = min(out[0], np.uint32(smallest))
    out[1] = max(out[1], np.uint32(largest))


@jit
def _extent32(raw, out):
    smallest = np.uint32(0xFFFFFFFF)
    largest = np.uint32(0)
    for i in range(raw.size):
        bits = np.uint32(raw[i] & MAGNITUDE)
        largest = max(largest, bits)
        smallest = min(smallest, np.uint32(bits - np.uint32(1)))
    out[0] = min(out[0], smallest)
    out[1] = max(out[1], largest)


def _extent(raw, out):
    """Lower out[0] to the smallest magnitude's bits - 1 and raise out[1] to the largest's bits."""


@overload(_extent)
def _extent_kind(raw, out):
    if raw.dtype.bitwidth == 16:
        return lambda raw, out: _extent16(raw, out)
    return lambda raw, out: _extent32(raw.view(np.uint32), out)


# --- ties ------------------------------------------------------------------------------------


@jit
def _position(magnitudes, key, ordinal):
    """Return the position just after the ``ordinal``-th entry equal to ``key``."""
    for i in range(magnitudes.size):
        if magnitudes[i] == key:
            ordinal -= 1
            if ordinal == 0:
                return i + 1
    return magnitudes.size


@jit
def _split(model, base, magnitudes, key, ordinal):
    """Return (position up to which ties of ``key`` count as first, ties still to come)."""
    n = base.size
    if ordinal <= 0:
        return (0 if ordinal == 0 else n), ordinal
    _magnitudes(model, base, magnitudes[:n])
    ties = _count_equal(magnitudes[:n], key)
    if ties <= ordinal:
        return n, ordinal - ties
    return _position(magnitudes[:n], key, ordinal), np.int64(0)


@jit
def _runs(model, base, magnitudes, bounds, ties, ends, firsts, lasts):
    """Split a block where ties begin or end to count; return the number of runs.

    bounds: low and high as float32 and the next keys, ``(low, low + 1, high - 1, high)``. ties:
    (2,) ties of low still to cut and of high still to keep, updated. Run r goes up to ends[r] and
    keeps magnitudes from firsts[r] to lasts[r].
    """
    n = base.size
    low_split, ties[0] = _split(model, base, magnitudes, bounds[0], ties[0])
    high_split, ties[1] = _split(model, base, magnitudes, bounds[3], ties[1])
    runs = 0
    i = 0
    while i < n:
        j = n
        if i < low_split < j:
            j = low_split
        if i < high_split < j:
            j = high_split
        ends[runs] = j
        firsts[runs] = bounds[1] if i < low_split else bounds[0]
        lasts[runs] = bounds[3] if i < high_split else bounds[2]
        runs += 1
        i = j
    return runs


@jit
def _bounds(cut, out):
    """Write a cut's keys as float32: low, the key after it, the key before high, high."""
    bits = out.view(np.uint32)
    bits[0] = np.uint32(min(cut[0], INFINITY + 1))
    bits[1] = np.uint32(min(cut[0] + 1, INFINITY + 1))
    bits[3] = np.uint32(min(cut[2], INFINITY))
    bits[2] = bits[3] - np.uint32(1)
    if cut[2] == 0:
        out[2] = -1.0
