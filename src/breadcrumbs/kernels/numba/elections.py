"""Elections of signs, as Numba kernels.

In place of the terms of all models, which would fill the cache, a block keeps their sum and that of
their magnitudes: the terms of one sign are half of the two's sum or difference. Of the largest term
it keeps the weight. Each model takes one loop, for each way to lose entries and each kind.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LARGEST, MEAN
from breadcrumbs.kernels.numba.steps import (
    _bounds,
    _count_drawn,
    _draw,
    _extent,
    _number,
    _runs,
    _squares,
    _widen,
    inline,
    jit,
)
from breadcrumbs.kernels.numba.undecided import _gather, _mark, _merge_step, _sum_signs

#: Entries of a block: its arrays and the models just fill the first-level cache.
BLOCK = 1024
#: What a term adds to the counts of an entry.
ABOVE, BELOW = np.int32(1), np.int32(0x10000)
ZERO, LAST = np.float32(0.0), np.float32(np.inf)


# --- steps: each one loop over one block -----------------------------------------------------


@jit
def _cut_sizes(model, base, first, last, total, size):
    """Add the differences from ``first`` to ``last``, and their magnitudes to ``size``."""
    for i in range(total.size):
        x, y = _number(model[i]), base[i]
        magnitude = abs(x - y)
        tau = np.float64(x) - np.float64(y)
        tau = tau if (magnitude >= first) & (magnitude <= last) else 0.0
        total[i] += tau
        size[i] += abs(tau)


@jit
def _cut_counts(model, base, first, last, total, size, counts):
    """Also count what is above the base in the lower 16 bits, what is below in the upper ones."""
    for i in range(total.size):
        x, y = _number(model[i]), base[i]
        magnitude = abs(x - y)
        stays = (magnitude >= first) & (magnitude <= last)
        tau = np.float64(x) - np.float64(y)
        tau = tau if stays else 0.0
        more = ABOVE if x > y else BELOW
        counts[i] += more if stays & (x != y) else np.int32(0)
        total[i] += tau
        size[i] += abs(tau)


@jit
def _cut_range(model, base, first, last, total, highest, lowest):
    for i in range(total.size):
        x, y, high, low = _number(model[i]), base[i], highest[i], lowest[i]
        magnitude = abs(x - y)
        stays = (magnitude >= first) & (magnitude <= last)
        tau = np.float64(x) - np.float64(y)
        total[i] += tau if stays else 0.0
        highest[i] = x if stays & (x > high) else high
        lowest[i] = x if stays & (x < low) else low


@jit
def _drop_sizes(model, base, draws, limit, total, size):
    for i in range(total.size):
        tau = np.float64(_number(model[i])) - np.float64(base[i])
        tau = tau if draws[i] < limit else 0.0
        total[i] += tau
        size[i] += abs(tau)


@jit
def _drop_counts(model, base, draws, limit, total, size, counts):
    for i in range(total.size):
        x, y = _number(model[i]), base[i]
        stays = draws[i] < limit
        tau = np.float64(x) - np.float64(y)
        tau = tau if stays else 0.0
        more = ABOVE if x > y else BELOW
        counts[i] += more if stays & (x != y) else np.int32(0)
        total[i] += tau
        size[i] += abs(tau)


@jit
def _drop_range(model, base, draws, limit, total, highest, lowest):
    for i in range(total.size):
        x, y, high, low = _number(model[i]), base[i], highest[i], lowest[i]
        stays = draws[i] < limit
        tau = np.float64(x) - np.float64(y)
        total[i] += tau if stays else 0.0
        highest[i] = x if stays & (x > high) else high
        lowest[i] = x if stays & (x < low) else low


@jit
def _start_range(wide, highest, lowest):
    for i in range(wide.size):
        highest[i] = wide[i]
        lowest[i] = wide[i]


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
def _take_largest(base, highest, lowest, least, step):
    for i in range(step.size):
        high, low = highest[i], lowest[i]
        step[i] = np.float64(high if step[i] > least else low) - np.float64(base[i])


# --- a block ---------------------------------------------------------------------------------
# Its state: the total and then the step, the sum of magnitudes, the counts,
# and the highest and the lowest weight kept. Which of them are in use, the kind decides.


@inline
def _begin(kind, base, wide, state):
    step, size, counts, highest, lowest = state
    _widen(base, wide)
    step[:] = 0.0
    if kind == LARGEST:
        _start_range(wide, highest, lowest)
        return
    size[:] = 0.0
    if kind == MEAN:
        counts[:] = 0


@inline
def _cut(kind, model, wide, first, last, state, i, j):
    """Add entries i to j of what one model keeps by magnitudes."""
    step, size, counts, highest, lowest = state
    x, y, total = model[i:j], wide[i:j], step[i:j]
    if kind == LARGEST:
        _cut_range(x, y, first, last, total, highest[i:j], lowest[i:j])
    elif kind == MEAN:
        _cut_counts(x, y, first, last, total, size[i:j], counts[i:j])
    else:
        _cut_sizes(x, y, first, last, total, size[i:j])


@inline
def _drop(kind, model, wide, draws, limit, state):
    """Add what one model keeps by its draws."""
    step, size, counts, highest, lowest = state
    if kind == LARGEST:
        _drop_range(model, wide, draws, limit, step, highest, lowest)
    elif kind == MEAN:
        _drop_counts(model, wide, draws, limit, step, size, counts)
    else:
        _drop_sizes(model, wide, draws, limit, step, size)


@inline
def _elect(kind, majority, wide, state):
    """Turn the total of every entry into its step."""
    step, size, counts, highest, lowest = state
    least = 0.0 if majority < 0 else -5e-324  # every total of 0 is over that, and none below 0
    if kind == LARGEST:
        _take_largest(wide, highest, lowest, least, step)
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
    _merge_step(wide, step, alpha, merged, single, out)
    _extent(base, extent)
    for t in range(models.shape[0]):
        _extent(models[t, start:stop], extent)
    return _squares(step)


# --- kernels ---------------------------------------------------------------------------------


@jit
def _elect_otherwise(kind, majority, wide, state, places, space, alpha, single, other):
    """Write what some entries of a block would be with that majority; return their squares."""
    step, size, counts, highest, lowest, base, merged = space
    k = places.size
    _, all_size, all_counts, all_highest, all_lowest = state
    step[:k] = 0.0
    _gather(wide, places, base)
    if kind == LARGEST:
        _gather(all_highest, places, highest)
        _gather(all_lowest, places, lowest)
    else:
        _gather(all_size, places, size)
        _gather(all_counts, places, counts)
    mine = step[:k], size[:k], counts[:k], highest[:k], lowest[:k]
    _elect(kind, majority, base[:k], mine)
    _merge_step(base[:k], step[:k], alpha, merged[:k], single[:k], other)
    return _squares(step[:k])


@inline
def _space():
    floats, singles = np.empty((3, BLOCK)), np.empty((3, BLOCK), np.float32)
    counts = np.empty(BLOCK, np.int32)
    return floats[0], floats[1], counts, singles[0], singles[1], singles[2], floats[2]


@jit
def elect_band(base, models, unit, cuts, kind, majority, alpha, extent, out, found, where, other):
    """See `Elections.elect_band`."""
    n = base.size
    votes, undecided, more = np.int64(0), np.int64(0), 0.0
    places_, marks, space = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.uint8), _space()
    wide_, single_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    totals, sizes = np.empty(BLOCK), np.empty(BLOCK)
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
            wide, single, step, size = wide_[:m], single_[:m], totals[:m], sizes[:m]
            state = step, size, counts[:m], highest[:m], lowest[:m]
            _begin(kind, base[start:stop], wide, state)
            for t in range(models.shape[0]):
                model = models[t, start:stop]
                _bounds(cuts[u, t], bounds)
                runs = _runs(model, wide, single, bounds, ties[t], ends, firsts, lasts)
                i = 0
                for r in range(runs):
                    j = ends[r]
                    _cut(kind, model, wide, firsts[r], lasts[r], state, i, j)
                    i = j
            k = 0
            if where.size:
                votes += _sum_signs(step)
                k = _mark(kind, wide, step, size, highest[:m], marks, places_)
            _elect(kind, majority, wide, state)
            if k:
                if undecided + k <= where.size:
                    places, at = places_[:k], slice(undecided, undecided + k)
                    where[at] = start + places
                    more += _elect_otherwise(
                        kind, -majority, wide, state, places, space, alpha, single, other[at]
                    )
                    _gather(step, places, space[0])
                    more -= _squares(space[0][:k])
                undecided += k
            squares += _finish(
                base[start:stop],
                wide,
                models,
                start,
                step,
                alpha,
                size,
                single,
                extent,
                out[start:stop],
                found[start:stop],
            )
    return squares, votes, undecided, more


@jit
def elect_drawn(base, models, keys, start, limits, kind, majority, alpha, extent, out, found, kept):
    """See `Elections.elect_drawn`."""
    n = base.size
    words = np.empty(BLOCK // 2 + 1, np.uint64)
    wide_, single_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    totals, sizes = np.empty(BLOCK), np.empty(BLOCK)
    counts = np.empty(BLOCK, np.int32)
    highest, lowest = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    squares = 0.0
    for a in range(0, n, BLOCK):
        b = min(n, a + BLOCK)
        m = b - a
        first = start + a
        draws = words.view(np.uint32)[first % 2 : first % 2 + m]
        wide, single, step, size = wide_[:m], single_[:m], totals[:m], sizes[:m]
        state = step, size, counts[:m], highest[:m], lowest[:m]
        _begin(kind, base[a:b], wide, state)
        for t in range(models.shape[0]):
            model = models[t, a:b]
            if limits.size:
                _draw(keys[t], first // 2, limits[t], words)
                kept[t] += _count_drawn(draws, limits[t])
                _drop(kind, model, wide, draws, limits[t], state)
            else:
                _cut(kind, model, wide, ZERO, LAST, state, 0, m)
        _elect(kind, majority, wide, state)
        squares += _finish(
            base[a:b],
            wide,
            models,
            a,
            step,
            alpha,
            size,
            single,
            extent,
            out[a:b],
            found[a:b],
        )
    return squares
