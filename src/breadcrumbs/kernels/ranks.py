"""The keys of two ranks of every unit, as Numba kernels; `plain` states the same in NumPy.

Units here fit a chunk. Their keys are counted in bins of their leading bits, once for both ranks;
of those in the bin that holds a rank the next bits are counted, and so on.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels import plain
from breadcrumbs.kernels.steps import _magnitudes, _widen, jit

BITS = 31
#: Leading bits of a pass over many entries, and over few; these are less to clear.
WIDE, NARROW = 12, 8
FEW = 2048
#: Smaller units are partitioned by NumPy, all at once.
WORTH_COUNTING = 512
BLOCK = 2048


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
    """See `plain.cut_units`."""
    if unit < WORTH_COUNTING or first >= last:
        return plain.cut_units(base, models, unit, first, last)
    cuts = np.empty((base.size // unit, len(models), 4), np.int64)
    cuts[:] = plain.everything(4)
    _cut_units(base, models, unit, first, last, cuts)
    return cuts
