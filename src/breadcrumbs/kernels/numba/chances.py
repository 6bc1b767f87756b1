"""What stays of a task vector by the ranks of its entries, as Numba kernels.

The ranks of a unit are found by a radix sort of codes: its keys less the smallest that is not 0,
without the trailing zeros that all have, which in bfloat16 are many.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.numba.steps import BLOCK, _draw, _magnitudes, _number, _widen, jit

#: Bits that one pass of a sort looks at, at most and in small units: bins are cleared and added up.
WIDEST, NARROW = 11, 8
MANY = 256
#: Units of so many entries and fewer are sorted by insertion.
FEW = 16
PLACE = np.uint64(0xFFFFFFFF)


# --- steps: each one loop --------------------------------------------------------------------


@jit
def _bits(keys):
    """Return (all bits that are set, the smallest key that is not 0, the largest)."""
    every, least, most = np.uint32(0), np.uint32(0xFFFFFFFF), np.uint32(0)
    for i in range(keys.size):
        key = keys[i]
        every |= key
        least = min(least, np.uint32(key - np.uint32(1)))
        most = max(most, key)
    return every, np.uint32(least + np.uint32(1)), most


@jit
def _words(keys, least, shift, words):
    """Write words of a code, which orders as the key, and the position."""
    for i in range(keys.size):
        key = keys[i]
        code = ((key - least) >> shift) + np.uint32(1) if key != np.uint32(0) else np.uint32(0)
        words[i] = (np.uint64(code) << np.uint64(32)) | np.uint64(i)


@jit
def _count_digits(words, shift, mask, bins):
    for i in range(words.size):
        bins[(words[i] >> shift) & mask] += np.uint32(1)


@jit
def _starts(bins):
    """Turn counts into how many entries come before each bin."""
    before = np.uint32(0)
    for b in range(bins.size):
        more = bins[b]
        bins[b] = before
        before += more


@jit
def _scatter(words, shift, mask, bins, out):
    for i in range(words.size):
        word = words[i]
        b = (word >> shift) & mask
        place = bins[b]
        out[place] = word
        bins[b] = place + np.uint32(1)


@jit
def _look_up(words, shift, mask, bins, chances, chance):
    """Do the last pass: write at the position of each word the chance of its rank."""
    for i in range(words.size):
        word = words[i]
        b = (word >> shift) & mask
        place = bins[b]
        chance[word & PLACE] = chances[place]
        bins[b] = place + np.uint32(1)


@jit
def _insert(keys, words, chances, chance):
    """Do all of it for a few keys, or for those that are all the same."""
    for i in range(keys.size):
        word = (np.uint64(keys[i]) << np.uint64(32)) | np.uint64(i)
        j = i
        while j > 0 and words[j - 1] > word:
            words[j] = words[j - 1]
            j -= 1
        words[j] = word
    for i in range(keys.size):
        chance[words[i] & PLACE] = chances[i]


@jit
def _keep(model, base, draws, chance, divide, taus, kept):
    for i in range(taus.size):
        p = chance[i]
        tau = (np.float64(_number(model[i])) - np.float64(base[i])) / (p if divide else 1.0)
        keep = np.float64(draws[i]) + 1.0 <= p * 2.0**32  # just as draw < floor(p * 2^32)
        taus[i] = tau if keep else 0.0
        kept[i] = np.uint8(keep)


# --- kernels ---------------------------------------------------------------------------------


@jit
def _rank(keys, words, others, bins, chances, chance):
    """Write the chance of each entry of a unit by its rank, from 0, by (key, position)."""
    every, least, most = _bits(keys)
    if keys.size <= FEW or every == 0:
        _insert(keys, words, chances, chance)
        return
    shift = np.uint32(0)
    while not (every >> shift) & np.uint32(1):
        shift += np.uint32(1)
    _words(keys, least, shift, words)
    code, bits = ((most - least) >> shift) + np.uint32(1), 0
    while code >> np.uint32(bits):
        bits += 1
    widest = WIDEST if keys.size >= MANY else NARROW
    at = np.uint64(32)
    for left in range(-(-bits // widest), 0, -1):
        width = -(-bits // left)
        bits -= width
        mask, mine = np.uint64((1 << width) - 1), bins[: 1 << width]
        mine[:] = 0
        _count_digits(words, at, mask, mine)
        _starts(mine)
        if left == 1:
            _look_up(words, at, mask, mine, chances, chance)
        else:
            _scatter(words, at, mask, mine, others)
            words, others = others, words
        at += np.uint64(width)


@jit
def _keep_by_rank(base, model, unit, key, start, chances, divide, taus, kept):
    step = max(1, BLOCK // unit) * unit
    wide, magnitudes = np.empty(step, np.float32), np.empty(step, np.float32)
    keys, chance = magnitudes.view(np.uint32), np.empty(step)
    words, others = np.empty(unit, np.uint64), np.empty(unit, np.uint64)
    bins, drawn = np.empty(1 << WIDEST, np.uint32), np.empty(step // 2 + 1, np.uint64)
    for a in range(0, base.size, step):
        b = min(base.size, a + step)
        m, first = b - a, start + a
        _widen(base[a:b], wide[:m])
        _magnitudes(model[a:b], wide[:m], magnitudes[:m])
        for u in range(0, m, unit):
            _rank(keys[u : u + unit], words, others, bins, chances, chance[u : u + unit])
        draws = drawn.view(np.uint32)[first % 2 : first % 2 + m]
        _draw(key, first // 2, np.uint32(0), drawn)
        _keep(model[a:b], wide[:m], draws, chance[:m], divide, taus[a:b], kept[a:b])


def keep_by_rank(base, model, unit, key, start, chances, divide, taus, kept):
    """See `Ranks.keep_by_rank`."""
    bits = kept.view(np.uint8)
    _keep_by_rank(base, model, unit, key, start, chances, divide, taus, bits)
