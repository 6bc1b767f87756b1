"""Keys and ranks, as Numba kernels: of the whole model by counting, of units by their leading bits.

Units here fit a chunk. Their keys are counted in bins of their leading bits, once for both ranks;
of those in the bin that holds a rank the next bits are counted, and so on.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.bounds import everything
from breadcrumbs.kernels.numba.steps import (
    BLOCK,
    _collect,
    _count_equal,
    _magnitudes,
    _magnitudes_and_count,
    _magnitudes_and_counts,
    _mark,
    _mark_both,
    _widen,
    jit,
)
from breadcrumbs.kernels.numpy import ranks as numpy_ranks

BITS = 31
#: Leading bits of a pass over many entries, and over few; these are less to clear.
WIDE, NARROW = 12, 8
FEW = 2048
#: Smaller units are partitioned by NumPy, all at once.
WORTH_COUNTING = 512


@jit
def _count_bins(keys, first, shift, bins):
    for i in range(keys.size):
        bins[(keys[i] - first) >> shift] += 1


@jit
def _find(bins, place):
    """Return (the bin that holds entry number ``place``, its number in there)."""
    b = 0
    while place > bins[b]:
        place -= bins[b]
        b += 1
    return b, place


@jit
def _gather(keys, low, high, out):
    """Write the keys from ``low`` to ``high`` to the front of ``out``; return how many."""
    n = 0
    for i in range(keys.size):
        key = keys[i]
        out[n] = key
        n += np.int64((key >= low) & (key <= high))
    return n


@jit
def _rank(keys, shift, b, place, bins, found):
    """Return (key, place among its equals) of entry ``place`` of bin b of ``1 << shift`` keys."""
    first = np.uint32(b << shift)
    n = keys.size
    source = keys
    while shift > 0:
        n = _gather(source[:n], first, first + np.uint32((1 << shift) - 1), found)
        source = found
        bits = min(shift, NARROW if n < FEW else WIDE)
        shift -= bits
        bins[: 1 << bits] = 0
        _count_bins(source[:n], first, np.uint32(shift), bins)
        b, place = _find(bins, place)
        first += np.uint32(b << shift)
    return np.int64(first), place


@jit
def _cut_units(base, models, unit, first, last, cuts):
    wide = np.empty(BLOCK, np.float32)
    magnitudes = np.empty(unit, np.float32)
    keys = magnitudes.view(np.uint32)
    found = np.empty(unit + 1, np.uint32)
    leading = NARROW if unit < FEW else WIDE
    shift = BITS - leading
    counts, bins = np.empty(1 << leading, np.int64), np.empty(1 << WIDE, np.int64)
    for u in range(cuts.shape[0]):
        for t in range(cuts.shape[1]):
            for start in range(u * unit, (u + 1) * unit, BLOCK):
                stop = min((u + 1) * unit, start + BLOCK)
                _widen(base[start:stop], wide[: stop - start])
                at = start - u * unit
                part = magnitudes[at : at + stop - start]
                _magnitudes(models[t, start:stop], wide[: stop - start], part)
            counts[:] = 0
            _count_bins(keys, np.uint32(0), np.uint32(shift), counts)
            if last < unit:
                b, place = _find(counts, last)
                cuts[u, t, 2], cuts[u, t, 3] = _rank(keys, shift, b, place, bins, found)
            if first > 0:
                b, place = _find(counts, first)
                cuts[u, t, 0], cuts[u, t, 1] = _rank(keys, shift, b, place, bins, found)


def cut_units(base, models, unit: int, first: int, last: int) -> np.ndarray:
    """See `Ranks.cut_units`."""
    if unit < WORTH_COUNTING or first >= last:
        return numpy_ranks.cut_units(base, models, unit, first, last)
    cuts = np.empty((base.size // unit, len(models), 4), np.int64)
    cuts[:] = everything(4)
    _cut_units(base, models, unit, first, last, cuts)
    return cuts


@jit
def tally(base, models, chunk, brackets, counts, sizes, kept):
    """See `Ranks.tally`."""
    n = base.size
    wide = np.empty(BLOCK, np.float32)
    magnitudes = np.empty(BLOCK, np.float32)
    keys = magnitudes.view(np.uint32)
    marks = np.zeros(BLOCK, np.uint8)
    words = marks.view(np.uint64)
    bounds = brackets.view(np.float32)
    filled = np.zeros(models.shape[0], np.int64)
    for i in range(counts.shape[0]):
        sizes[i] = -filled
        end = min(n, (i + 1) * chunk)
        for start in range(i * chunk, end, BLOCK):
            stop = min(end, start + BLOCK)
            size = stop - start
            _widen(base[start:stop], wide[:size])
            if size < BLOCK:
                marks[:] = 0
            for t in range(models.shape[0]):
                low, low_end, high, high_end = bounds[t]
                model, mine = models[t, start:stop], magnitudes[:size]
                if low <= low_end and high <= high_end:
                    below_low, below_high = _magnitudes_and_counts(
                        model, wide[:size], low, high, mine
                    )
                    counts[i, t, 0] += below_low
                    counts[i, t, 2] += below_high
                else:
                    column = 0 if low <= low_end else 2
                    below = low if low <= low_end else high
                    below = below if low <= low_end or high <= high_end else np.float32(0.0)
                    counts[i, t, column] += _magnitudes_and_count(model, wide[:size], below, mine)
                if low == low_end:
                    counts[i, t, 1] += _count_equal(mine, low)
                if high == high_end:
                    counts[i, t, 3] += _count_equal(mine, high)
                if low < low_end and high < high_end:
                    _mark_both(mine, low, low_end, high, high_end, marks[:size])
                elif low < low_end:
                    _mark(mine, low, low_end, marks[:size])
                elif high < high_end:
                    _mark(mine, high, high_end, marks[:size])
                else:
                    continue
                filled[t] = _collect(keys, words, kept[t], filled[t])
        sizes[i] += filled


@jit
def _bin(keys, low, width, shift, bins):
    for i in range(keys.size):
        offset = keys[i] - low
        if offset < width:
            bins[offset >> shift] += 1


@jit
def select(keys, low, end, place):
    """See `Ranks.select`."""
    first = np.uint32(low)
    width = np.uint32(end) - first + np.uint32(1)
    left = np.int64(place)
    bins = np.empty(4097, np.int64)
    while True:
        shift = np.uint32(0)
        while (width - np.uint32(1)) >> shift >= 4096:
            shift += np.uint32(1)
        bins[:] = 0
        _bin(keys, first, width, shift, bins)
        found = -1
        for b in range(4097):
            if left <= bins[b]:
                found = b
                break
            left -= bins[b]
        if found < 0:
            return 0, 0
        first += np.uint32(found << shift)
        if shift == 0:
            return np.int64(first), left
        width = np.uint32(1) << shift
