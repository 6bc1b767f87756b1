"""The hot operations as Numba kernels; `plain` states the same operations in NumPy.

Both return the same bits. Every step is a function of its own on slices of a block that stays in
the first-level cache: only then does LLVM vectorise all of them (the same loops nested in one
function run four times slower). Compiled are the two kinds of raw weights that nearly all
checkpoints come down to: ``uint16``, the bits of bfloat16, and ``float32``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.extending import overload

from breadcrumbs.kernels.plain import cut_units, extent_of, histogram, merge, round_to

__all__ = [
    "add_band",
    "add_drawn",
    "cut_units",
    "extent",
    "finish",
    "histogram",
    "merge",
    "round_to",
    "tally",
]

BLOCK = 2048
MAGNITUDE = np.uint32(0x7FFFFFFF)

jit = njit(nogil=True, cache=True, error_model="numpy")


# --- steps: each one loop over one block -----------------------------------------------------


def _widen(raw, out):
    """Write raw weights as float32."""


@overload(_widen)
def _widen_kind(raw, out):
    if raw.dtype.bitwidth == 16:

        def widen(raw, out):
            bits = out.view(np.uint32)
            for i in range(raw.size):
                bits[i] = np.uint32(raw[i]) << np.uint32(16)

    else:

        def widen(raw, out):
            for i in range(raw.size):
                out[i] = raw[i]

    return widen


@jit
def _subtract(model, base, tau):
    for i in range(tau.size):
        tau[i] = model[i] - base[i]


@jit
def _magnitudes(keys):
    for i in range(keys.size):
        keys[i] &= MAGNITUDE


@jit
def _count(keys, low, high):
    below_low = np.uint32(0)
    upto_low = np.uint32(0)
    below_high = np.uint32(0)
    upto_high = np.uint32(0)
    for i in range(keys.size):
        below_low += np.uint32(keys[i] < low)
        upto_low += np.uint32(keys[i] <= low)
        below_high += np.uint32(keys[i] < high)
        upto_high += np.uint32(keys[i] <= high)
    return below_low, upto_low, below_high, upto_high


@jit
def _mark(keys, low, low_width, high, high_width, marks):
    for i in range(keys.size):
        marks[i] = np.uint8((keys[i] - low) < low_width) | np.uint8((keys[i] - high) < high_width)


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
def _count_equal(keys, key):
    n = np.uint32(0)
    for i in range(keys.size):
        n += np.uint32(keys[i] == key)
    return np.int64(n)


@jit
def _count_band(keys, first, width):
    n = np.uint32(0)
    for i in range(keys.size):
        n += np.uint32((keys[i] - first) < width)
    return np.int64(n)


@jit
def _add_kept(model, base, keys, first, width, total):
    for i in range(total.size):
        tau = np.float64(model[i]) - np.float64(base[i])
        total[i] += tau if (keys[i] - first) < width else 0.0


@jit
def _add_all(model, base, total):
    for i in range(total.size):
        total[i] += np.float64(model[i]) - np.float64(base[i])


@jit
def tally(base, models, brackets, counts, kept, filled):
    """See `plain.tally`."""
    n = base.size
    wide_base = np.empty(BLOCK, np.float32)
    wide_model = np.empty(BLOCK, np.float32)
    tau = np.empty(BLOCK, np.float32)
    keys = tau.view(np.uint32)
    marks = np.zeros(BLOCK, np.uint8)
    words = marks.view(np.uint64)
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        _widen(base[start : start + size], wide_base[:size])
        for t in range(models.shape[0]):
            _widen(models[t, start : start + size], wide_model[:size])
            _subtract(wide_model[:size], wide_base[:size], tau[:size])
            _magnitudes(keys[:size])
            low, low_end, high, high_end = brackets[t]
            a, b, c, d = _count(keys[:size], low, high)
            counts[t, 0] += a
            counts[t, 1] += b
            counts[t, 2] += c
            counts[t, 3] += d
            if low_end > low or high_end > high:
                _mark(
                    keys[:size],
                    low + np.uint32(1),
                    low_end - low,
                    high + np.uint32(1),
                    high_end - high,
                    marks[:size],
                )
                if size < BLOCK:
                    marks[size:] = 0
                filled[t] = _collect(keys, words, kept[t], filled[t])


@jit
def _position(keys, key, ordinal):
    """Return the position just after the ``ordinal``-th entry equal to ``key``."""
    for i in range(keys.size):
        if keys[i] == key:
            ordinal -= 1
            if ordinal == 0:
                return i + 1
    return keys.size


@jit
def _split(keys, key, ordinal):
    """Return (position up to which ties of ``key`` count as first, ties still to come)."""
    if ordinal <= 0:
        return (0 if ordinal == 0 else keys.size), ordinal
    ties = _count_equal(keys, key)
    if ties <= ordinal:
        return keys.size, ordinal - ties
    return _position(keys, key, ordinal), np.int64(0)


@jit
def _add_pair(model, base, keys, first, width, weight, total, rest, inexact):
    """Add ``weight * (model - base)`` to ``total + rest`` with the rounding errors kept in rest."""
    for i in range(total.size):
        x = np.float64(model[i])
        y = np.float64(base[i])
        tau = x - y
        back = tau - x
        lost = (x - (tau - back)) - (y + back)
        keep = (keys[i] - first) < width
        term = weight * tau if keep else 0.0
        lost = weight * lost if keep else 0.0
        sum_ = total[i] + term
        back = sum_ - total[i]
        error = (total[i] - (sum_ - back)) + (term - back)
        total[i] = sum_
        sum_ = rest[i] + error
        back = sum_ - rest[i]
        again = (rest[i] - (sum_ - back)) + (error - back)
        last = sum_ + lost
        back = last - sum_
        again_too = (sum_ - (last - back)) + (lost - back)
        rest[i] = last
        inexact[i] |= np.uint8(again != 0.0) | np.uint8(again_too != 0.0)


@jit
def add_band(base, models, unit, cuts, weights, total, rest, inexact, kept):
    """See `plain.add_band`."""
    n = base.size
    pair = rest.size > 0
    wide_base = np.empty(BLOCK, np.float32)
    wide_model = np.empty(BLOCK, np.float32)
    tau = np.empty(BLOCK, np.float32)
    keys = tau.view(np.uint32)
    ties = np.empty((models.shape[0], 2), np.int64)
    for u in range(cuts.shape[0]):
        for t in range(models.shape[0]):
            ties[t, 0] = cuts[u, t, 1]
            ties[t, 1] = cuts[u, t, 3]
        end = min(n, (u + 1) * unit)
        for start in range(u * unit, end, BLOCK):
            size = min(BLOCK, end - start)
            _widen(base[start : start + size], wide_base[:size])
            for t in range(models.shape[0]):
                _widen(models[t, start : start + size], wide_model[:size])
                _subtract(wide_model[:size], wide_base[:size], tau[:size])
                _magnitudes(keys[:size])
                low = np.uint32(cuts[u, t, 0])
                high = np.uint32(cuts[u, t, 2])
                low_split, ties[t, 0] = _split(keys[:size], low, ties[t, 0])
                high_split, ties[t, 1] = _split(keys[:size], high, ties[t, 1])
                i = 0
                while i < size:
                    # Before low_split the ties of `low` are cut, before high_split those of
                    # `high` are kept; so each run has one half-open interval of keys.
                    j = size
                    if i < low_split < j:
                        j = low_split
                    if i < high_split < j:
                        j = high_split
                    first = low + np.uint32(1) if i < low_split else low
                    stop = high + np.uint32(1) if i < high_split else high
                    if first < stop:
                        a = start + i
                        b = start + j
                        if kept.size:
                            kept[t] += _count_band(keys[i:j], first, stop - first)
                        if pair:
                            _add_pair(
                                wide_model[i:j],
                                wide_base[i:j],
                                keys[i:j],
                                first,
                                stop - first,
                                weights[t],
                                total[a:b],
                                rest[a:b],
                                inexact[a:b],
                            )
                        else:
                            _add_kept(
                                wide_model[i:j],
                                wide_base[i:j],
                                keys[i:j],
                                first,
                                stop - first,
                                total[a:b],
                            )
                    i = j


@jit
def add_drawn(base, models, draws, limits, weights, total, rest, inexact):
    """See `plain.add_drawn`."""
    n = base.size
    pair = rest.size > 0
    drawn = draws.shape[1] > 0
    wide_base = np.empty(BLOCK, np.float32)
    wide_model = np.empty(BLOCK, np.float32)
    keys = np.zeros(BLOCK, np.uint32)
    for a in range(0, n, BLOCK):
        b = min(n, a + BLOCK)
        size = b - a
        _widen(base[a:b], wide_base[:size])
        for t in range(models.shape[0]):
            _widen(models[t, a:b], wide_model[:size])
            width = np.uint32(1)
            if drawn:
                keys[:size] = draws[t, a:b]
                width = limits[t]
            if pair:
                _add_pair(
                    wide_model[:size],
                    wide_base[:size],
                    keys[:size],
                    np.uint32(0),
                    width,
                    weights[t],
                    total[a:b],
                    rest[a:b],
                    inexact[a:b],
                )
            elif drawn:
                _add_kept(
                    wide_model[:size],
                    wide_base[:size],
                    keys[:size],
                    np.uint32(0),
                    width,
                    total[a:b],
                )
            else:
                _add_all(wide_model[:size], wide_base[:size], total[a:b])


@jit
def _extent16(raw, out):
    largest = np.uint16(0)
    smallest = np.uint16(0xFFFF)
    for i in range(raw.size):
        bits = np.uint16(raw[i] & np.uint16(0x7FFF))
        largest = max(largest, bits)
        smallest = min(smallest, np.uint16(bits - np.uint16(1)))
    out[0] = smallest
    out[1] = largest


@jit
def _extent32(raw, out):
    largest = np.uint32(0)
    smallest = np.uint32(0xFFFFFFFF)
    for i in range(raw.size):
        bits = np.uint32(raw[i] & MAGNITUDE)
        largest = max(largest, bits)
        smallest = min(smallest, np.uint32(bits - np.uint32(1)))
    out[0] = smallest
    out[1] = largest


@jit
def _merge(base, total, alpha, merged):
    for i in range(merged.size):
        merged[i] = np.float64(base[i]) + alpha * total[i]


@jit
def _count_zeros(merged):
    zeros = np.uint64(0)
    for i in range(merged.size):
        zeros += np.uint64(merged[i] == 0.0)
    return np.int64(zeros)


@jit
def _narrow(merged, single):
    for i in range(merged.size):
        single[i] = np.float32(merged[i])


@jit
def _count_halfway(bits):
    n = np.uint32(0)
    for i in range(bits.size):
        n += np.uint32((bits[i] & np.uint32(0xFFFF)) == np.uint32(0x8000))
    return n


@jit
def _break_halfway(merged, single, bits):
    """Move what lies halfway between two bfloat16 only after rounding to the side it came from."""
    for i in range(bits.size):
        if (bits[i] & np.uint32(0xFFFF)) == np.uint32(0x8000):
            exact = abs(merged[i])
            rounded = abs(np.float64(single[i]))
            if exact > rounded:
                bits[i] += np.uint32(1)
            elif exact < rounded:
                bits[i] -= np.uint32(1)


@jit
def _round_bfloat16(bits, out):
    for i in range(out.size):
        even = (bits[i] >> np.uint32(16)) & np.uint32(1)
        out[i] = np.uint16((bits[i] + np.uint32(0x7FFF) + even) >> np.uint32(16))


def _round(merged, single, out):
    """Round float64 to bfloat16 bits or to float32, once."""


@overload(_round)
def _round_kind(merged, single, out):
    if out.dtype.bitwidth == 16:

        def round_(merged, single, out):
            bits = single.view(np.uint32)
            _narrow(merged, single)
            if _count_halfway(bits) > 0:
                _break_halfway(merged, single, bits)
            _round_bfloat16(bits, out)

    else:

        def round_(merged, single, out):
            _narrow(merged, out)

    return round_


@jit
def finish(base, total, alpha, out):
    """See `plain.finish`."""
    n = base.size
    wide = np.empty(BLOCK, np.float32)
    merged = np.empty(BLOCK, np.float64)
    single = np.empty(BLOCK, np.float32)
    zeros = 0
    for start in range(0, n, BLOCK):
        size = min(BLOCK, n - start)
        _widen(base[start : start + size], wide[:size])
        _merge(wide[:size], total[start : start + size], alpha, merged[:size])
        zeros += _count_zeros(merged[:size])
        _round(merged[:size], single[:size], out[start : start + size])
    return zeros


def extent(raw: np.ndarray) -> tuple[float, float]:
    """See `plain.extent`."""
    pair = np.empty(2, np.uint16 if raw.dtype == np.uint16 else np.uint32)
    bits = raw.reshape(-1).view(pair.dtype)
    (_extent16 if raw.dtype == np.uint16 else _extent32)(bits, pair)
    return extent_of(pair[0], pair[1], raw.dtype)
