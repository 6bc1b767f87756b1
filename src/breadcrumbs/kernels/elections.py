"""Elections of signs as Numba kernels; `plain` states the same operations in NumPy.

In place of the terms of all models, which would fill the cache, a block keeps their sum and that of
their magnitudes: the terms of one sign are half of the two's sum or difference. Of the largest term
it keeps the weight. What a model loses is first replaced by the base, so that the steps after that
know no cuts and no draws.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from breadcrumbs.kernels.plain import LARGEST, MEAN
from breadcrumbs.kernels.steps import (
    _add_between,
    _bounds,
    _count_drawn,
    _count_unusual,
    _draw,
    _extent,
    _merge,
    _number,
    _round,
    _runs,
    _squares,
    _widen,
    jit,
)

#: Entries of a block: its arrays and the models just fill the first-level cache.
BLOCK = 1024

#: For what only calls steps: as a call of its own it would cost as much as a step.
inline = njit(nogil=True, cache=True, error_model="numpy", inline="always")


# --- steps: each one loop over one block -----------------------------------------------------


@jit
def _cut(model, base, first, last, kept):
    """Write the entries that changed by ``first`` to ``last``, and the base for the others."""
    for i in range(kept.size):
        x = _number(model[i])
        magnitude = abs(x - base[i])
        kept[i] = x if (magnitude >= first) & (magnitude <= last) else base[i]


@jit
def _drop(model, base, draws, limit, kept):
    for i in range(kept.size):
        x = _number(model[i])
        kept[i] = x if draws[i] < limit else base[i]


@jit
def _start(wide, doubles, total, size):
    for i in range(wide.size):
        doubles[i] = np.float64(wide[i])
        total[i] = 0.0
        size[i] = 0.0


@jit
def _start_range(wide, highest, lowest):
    for i in range(wide.size):
        highest[i] = wide[i]
        lowest[i] = wide[i]


@jit
def _add_signed(kept, doubles, total):
    for i in range(kept.size):
        total[i] += np.float64(kept[i]) - doubles[i]


@jit
def _add_sizes(kept, doubles, total, size):
    """Add the differences to ``total`` and their magnitudes to ``size``."""
    for i in range(kept.size):
        tau = np.float64(kept[i]) - doubles[i]
        total[i] += tau
        size[i] += abs(tau)


@jit
def _count(kept, base, counts):
    """Count what lies above the base in the lower 16 bits, what lies below in the upper ones."""
    for i in range(kept.size):
        x, y, n = kept[i], base[i], counts[i]
        n = n + np.int32(1) if x > y else n
        counts[i] = n + np.int32(0x10000) if x < y else n


@jit
def _stretch(kept, highest, lowest):
    for i in range(kept.size):
        x, high, low = kept[i], highest[i], lowest[i]
        highest[i] = x if x > high else high
        lowest[i] = x if x < low else low


@jit
def _take_sum(size, least, step):
    """Turn a total into the sum of its terms that are positive if it is over ``least``."""
    for i in range(step.size):
        total, both = step[i], size[i]
        step[i] = 0.5 * (total + (both if total > least else -both))


@jit
def _take_mean(size, counts, least, step):
    for i in range(step.size):
        total, both, number = step[i], size[i], counts[i]
        up = total > least
        number = (number if up else number >> np.int32(16)) & np.int32(0xFFFF)
        sum_ = 0.5 * (total + (both if up else -both))
        step[i] = sum_ / np.float64(max(number, np.int32(1)))


@jit
def _take_largest(doubles, highest, lowest, least, step):
    for i in range(step.size):
        high, low = highest[i], lowest[i]
        step[i] = np.float64(high if step[i] > least else low) - doubles[i]


@jit
def _keep_zeros(base, step, alpha, merged):
    """Where nothing is added keep the base's zero, with its sign."""
    for i in range(merged.size):
        if merged[i] == 0.0 and alpha * step[i] == 0.0:
            merged[i] = base[i]


@jit
def _sum_signs(total):
    votes = np.int64(0)
    for i in range(total.size):
        votes += np.int64(total[i] > 0.0) - np.int64(total[i] < 0.0)
    return votes


# --- a block ---------------------------------------------------------------------------------
# Its state: the base in float64, the total and then the step, the sum of magnitudes, the counts,
# and the highest and the lowest weight kept. Which of them are in use, the kind decides.


@inline
def _begin(kind, base, wide, state):
    doubles, step, size, counts, highest, lowest = state
    _widen(base, wide)
    _start(wide, doubles, step, size)
    if kind == LARGEST:
        _start_range(wide, highest, lowest)
    elif kind == MEAN:
        counts[:] = 0


@inline
def _add(kind, kept, wide, state):
    """Add what one model keeps."""
    doubles, step, size, counts, highest, lowest = state
    if kind == LARGEST:
        _add_signed(kept, doubles, step)
        _stretch(kept, highest, lowest)
    else:
        _add_sizes(kept, doubles, step, size)
        if kind == MEAN:
            _count(kept, wide, counts)


@inline
def _elect(kind, majority, state):
    """Turn the total of every entry into its step."""
    doubles, step, size, counts, highest, lowest = state
    least = 0.0 if majority < 0 else -5e-324  # every total of 0 is over that, and none below 0
    if kind == LARGEST:
        _take_largest(doubles, highest, lowest, least, step)
    elif kind == MEAN:
        _take_mean(size, counts, least, step)
    else:
        _take_sum(size, least, step)


@jit
def _finish(base, wide, models, start, step, alpha, merged, single, extent, out, found):
    """Round one block, and note the extent of its weights; return the sum of squares."""
    stop = start + base.size
    if found.size:
        found[:] = step
    _merge(wide, step, alpha, merged)
    unusual = _count_unusual(merged)
    if unusual:
        _keep_zeros(wide, step, alpha, merged)
    _round(merged, single, unusual, out)
    _extent(base, extent)
    for t in range(models.shape[0]):
        _extent(models[t, start:stop], extent)
    return _squares(step)


# --- kernels ---------------------------------------------------------------------------------


@jit
def elect_band(base, models, unit, cuts, kind, majority, alpha, extent, out, found):
    """See `plain.elect_band`."""
    n = base.size
    wide_, kept_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    doubles, totals, sizes = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    counts = np.empty(BLOCK, np.int32)
    highest, lowest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty((models.shape[0], 2), np.int64)
    squares = 0.0
    for u in range(cuts.shape[0]):
        ties[:, 0] = cuts[u, :, 1]
        ties[:, 1] = cuts[u, :, 3]
        end = min(n, (u + 1) * unit)
        for start in range(u * unit, end, BLOCK):
            stop = min(end, start + BLOCK)
            m = stop - start
            wide, kept, step, size = wide_[:m], kept_[:m], totals[:m], sizes[:m]
            state = doubles[:m], step, size, counts[:m], highest[:m], lowest[:m]
            _begin(kind, base[start:stop], wide, state)
            for t in range(models.shape[0]):
                model = models[t, start:stop]
                _bounds(cuts[u, t], bounds)
                runs = _runs(model, wide, kept, bounds, ties[t], ends, firsts, lasts)
                i = 0
                for r in range(runs):
                    j = ends[r]
                    _cut(model[i:j], wide[i:j], firsts[r], lasts[r], kept[i:j])
                    i = j
                _add(kind, kept, wide, state)
            _elect(kind, majority, state)
            squares += _finish(
                base[start:stop],
                wide,
                models,
                start,
                step,
                alpha,
                size,
                kept,
                extent,
                out[start:stop],
                found[start:stop],
            )
    return squares


@jit
def elect_drawn(
    base, models, keys, start, limits, kind, majority, alpha, extent, out, found, kept_number
):
    """See `plain.elect_drawn`."""
    n = base.size
    words = np.empty(BLOCK // 2 + 1, np.uint64)
    wide_, kept_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    doubles, totals, sizes = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    counts = np.empty(BLOCK, np.int32)
    highest, lowest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    squares = 0.0
    for a in range(0, n, BLOCK):
        b = min(n, a + BLOCK)
        m = b - a
        first = start + a
        draws = words.view(np.uint32)[first % 2 : first % 2 + m]
        wide, kept, step, size = wide_[:m], kept_[:m], totals[:m], sizes[:m]
        state = doubles[:m], step, size, counts[:m], highest[:m], lowest[:m]
        _begin(kind, base[a:b], wide, state)
        for t in range(models.shape[0]):
            model = models[t, a:b]
            if limits.size:
                _draw(keys[t], first // 2, limits[t], words)
                kept_number[t] += _count_drawn(draws, limits[t])
                _drop(model, wide, draws, limits[t], kept)
            else:
                _widen(model, kept)
            _add(kind, kept, wide, state)
        _elect(kind, majority, state)
        squares += _finish(
            base[a:b],
            wide,
            models,
            a,
            step,
            alpha,
            size,
            kept,
            extent,
            out[a:b],
            found[a:b],
        )
    return squares


@jit
def vote_band(base, models, unit, cuts):
    """See `plain.vote_band`."""
    n = base.size
    wide, magnitudes = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    total = np.empty(BLOCK)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty((models.shape[0], 2), np.int64)
    votes = np.int64(0)
    for u in range(cuts.shape[0]):
        ties[:, 0] = cuts[u, :, 1]
        ties[:, 1] = cuts[u, :, 3]
        end = min(n, (u + 1) * unit)
        for start in range(u * unit, end, BLOCK):
            stop = min(end, start + BLOCK)
            m = stop - start
            _widen(base[start:stop], wide[:m])
            total[:m] = 0.0
            for t in range(models.shape[0]):
                model = models[t, start:stop]
                _bounds(cuts[u, t], bounds)
                runs = _runs(model, wide[:m], magnitudes, bounds, ties[t], ends, firsts, lasts)
                i = 0
                for r in range(runs):
                    j = ends[r]
                    _add_between(model[i:j], wide[i:j], firsts[r], lasts[r], total[i:j])
                    i = j
            votes += _sum_signs(total[:m])
    return votes
