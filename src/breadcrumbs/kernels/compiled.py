"""The hot operations as Numba kernels; `plain` states the same operations in NumPy.

Both return the same bits. They go through the weights in blocks, by the `steps`. Compiled are the
two kinds of raw weights that nearly all checkpoints come down to: ``uint16``, the bits of
bfloat16, and ``float32``.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

from breadcrumbs.kernels import plain
from breadcrumbs.kernels.elections import elect_band, elect_drawn
from breadcrumbs.kernels.plain import NO_EXTENT, extent_of, histogram
from breadcrumbs.kernels.products import combine, products, row_products
from breadcrumbs.kernels.ranked import keep_by_rank
from breadcrumbs.kernels.ranks import cut_units
from breadcrumbs.kernels.steps import (
    BLOCK,
    _add_all,
    _add_between,
    _add_drawn,
    _add_pair,
    _any,
    _bounds,
    _collect,
    _count_drawn,
    _count_equal,
    _count_unusual,
    _draw,
    _extent,
    _keep_between,
    _keep_drawn,
    _magnitudes,
    _magnitudes_and_count,
    _magnitudes_and_counts,
    _mark,
    _mark_both,
    _merge,
    _merge_pair,
    _number,
    _round,
    _runs,
    _settle,
    _squares,
    _two_sum,
    _widen,
    jit,
)
from breadcrumbs.kernels.terms import add_step, elected, exact_sum
from breadcrumbs.kernels.weighted import elect_weighted

__all__ = [
    "add_band",
    "add_drawn",
    "add_step",
    "combine",
    "cut_units",
    "elect_band",
    "elect_drawn",
    "elect_weighted",
    "elected",
    "exact_sum",
    "extent",
    "histogram",
    "keep_by_rank",
    "magnitudes",
    "merge",
    "merge_band",
    "merge_drawn",
    "products",
    "round_to",
    "row_products",
    "select",
    "tally",
]


@jit
def tally(base, models, chunk, brackets, counts, sizes, kept):
    """See `plain.tally`."""
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
    """See `plain.select`."""
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


@jit
def add_band(base, models, unit, cuts, weights, total, rest, inexact):
    """See `plain.add_band`."""
    n = base.size
    pair = rest.size > 0
    wide = np.empty(BLOCK, np.float32)
    magnitudes = np.empty(BLOCK, np.float32)
    keep = np.empty(BLOCK, np.uint8)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty((models.shape[0], 2), np.int64)
    for u in range(cuts.shape[0]):
        for t in range(models.shape[0]):
            ties[t, 0] = cuts[u, t, 1]
            ties[t, 1] = cuts[u, t, 3]
        end = min(n, (u + 1) * unit)
        for start in range(u * unit, end, BLOCK):
            stop = min(end, start + BLOCK)
            size = stop - start
            _widen(base[start:stop], wide[:size])
            for t in range(models.shape[0]):
                model = models[t, start:stop]
                _bounds(cuts[u, t], bounds)
                runs = _runs(model, wide[:size], magnitudes, bounds, ties[t], ends, firsts, lasts)
                i = 0
                for r in range(runs):
                    j = ends[r]
                    a, b = start + i, start + j
                    if pair:
                        _magnitudes(models[t, a:b], wide[i:j], magnitudes[i:j])
                        _keep_between(magnitudes[i:j], firsts[r], lasts[r], keep[i:j])
                        _add_pair(
                            models[t, a:b],
                            wide[i:j],
                            keep[i:j],
                            weights[t],
                            total[a:b],
                            rest[a:b],
                            inexact[a:b],
                        )
                    else:
                        _add_between(models[t, a:b], wide[i:j], firsts[r], lasts[r], total[a:b])
                    i = j


@jit
def _add_block(models, a, wide, drawn, weights, words, keep, sums, kept):
    """Add what stays of the entries from ``a`` on, as many as ``wide`` has, of all models."""
    keys, start, limits = drawn
    total, rest, inexact = sums
    m = wide.size
    first = start + a
    draws = words.view(np.uint32)[first % 2 : first % 2 + m]
    for t in range(models.shape[0]):
        model = models[t, a : a + m]
        if limits.size:
            _draw(keys[t], first // 2, limits[t], words)
            kept[t] += _count_drawn(draws, limits[t])
        if rest.size:
            if limits.size:
                _keep_drawn(draws, limits[t], keep[:m])
            _add_pair(model, wide, keep[:m], weights[t], total, rest, inexact)
        elif limits.size:
            _add_drawn(model, wide, draws, limits[t], total)
        else:
            _add_all(model, wide, total)


@jit
def add_drawn(base, models, keys, start, limits, weights, total, rest, inexact, kept):
    """See `plain.add_drawn`."""
    wide = np.empty(BLOCK, np.float32)
    keep = np.ones(BLOCK, np.uint8)
    words = np.empty(BLOCK // 2 + 1, np.uint64)
    for a in range(0, base.size, BLOCK):
        b = min(base.size, a + BLOCK)
        _widen(base[a:b], wide[: b - a])
        sums = total[a:b], rest[a:b], inexact[a:b]
        _add_block(
            models, a, wide[: b - a], (keys, start, limits), weights, words, keep, sums, kept
        )


@jit
def _sign_zeros(base, models, start, total, merged):
    """Give exact zeros the sign that `plain.sign_zeros` states."""
    for i in range(merged.size):
        if merged[i] == 0.0:
            same = models.shape[0] > 0
            first = np.float32(0.0)
            if same:
                first = _number(models[0, start + i])
            for t in range(models.shape[0]):
                x = _number(models[t, start + i])
                if x != 0.0 or np.signbit(x) != np.signbit(first):
                    same = False
            if same:
                merged[i] = first
            elif total[i] == 0.0:
                merged[i] = base[i]


@jit
def _finish(base, wide, models, start, total, rest, alpha, merged, single, extent, out):
    """Round one block, and note the extent of its weights; return the sum of squares."""
    stop = start + base.size
    if rest.size:
        _settle(total, rest)
        _merge_pair(wide, total, rest, alpha, merged)
    else:
        _merge(wide, total, alpha, merged)
    unusual = _count_unusual(merged)
    if unusual:
        _sign_zeros(wide, models, start, total, merged)
    _round(merged, single, unusual, out)
    _extent(base, extent)
    for t in range(models.shape[0]):
        _extent(models[t, start:stop], extent)
    return _squares(total)


@jit
def merge_band(base, models, unit, cuts, weights, alpha, extent, out):
    """See `plain.merge_band`."""
    n = base.size
    pair = BLOCK if weights.size else 0
    wide_ = np.empty(BLOCK, np.float32)
    magnitudes = np.empty(BLOCK, np.float32)
    keep = np.empty(BLOCK, np.uint8)
    totals, mergeds, rests = np.empty(BLOCK), np.empty(BLOCK), np.empty(pair)
    flags = np.zeros(pair, np.uint8)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty((models.shape[0], 2), np.int64)
    squares = 0.0
    for u in range(cuts.shape[0]):
        for t in range(models.shape[0]):
            ties[t, 0] = cuts[u, t, 1]
            ties[t, 1] = cuts[u, t, 3]
        end = min(n, (u + 1) * unit)
        for start in range(u * unit, end, BLOCK):
            stop = min(end, start + BLOCK)
            size = stop - start
            wide, total, rest, inexact = wide_[:size], totals[:size], rests[:size], flags[:size]
            _widen(base[start:stop], wide)
            total[:] = 0.0
            rest[:] = 0.0
            for t in range(models.shape[0]):
                model = models[t, start:stop]
                _bounds(cuts[u, t], bounds)
                runs = _runs(model, wide, magnitudes, bounds, ties[t], ends, firsts, lasts)
                if pair:
                    _magnitudes(model, wide, magnitudes[:size])
                i = 0
                for r in range(runs):
                    j = ends[r]
                    if pair:
                        _keep_between(magnitudes[i:j], firsts[r], lasts[r], keep[i:j])
                    else:
                        _add_between(model[i:j], wide[i:j], firsts[r], lasts[r], total[i:j])
                    i = j
                if pair:
                    _add_pair(model, wide, keep[:size], weights[t], total, rest, inexact)
            squares += _finish(
                base[start:stop],
                wide,
                models,
                start,
                total,
                rest,
                alpha,
                mergeds[:size],
                magnitudes[:size],
                extent,
                out[start:stop],
            )
    return squares, _any(flags)


@jit
def merge_drawn(base, models, keys, start, limits, weights, alpha, extent, out, kept):
    """See `plain.merge_drawn`."""
    n = base.size
    pair = BLOCK if weights.size else 0
    wide, single = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    keep = np.ones(BLOCK, np.uint8)
    words = np.empty(BLOCK // 2 + 1, np.uint64)
    totals, merged, rests = np.empty(BLOCK), np.empty(BLOCK), np.empty(pair)
    flags = np.zeros(pair, np.uint8)
    squares = 0.0
    for a in range(0, n, BLOCK):
        b = min(n, a + BLOCK)
        m = b - a
        total, rest = totals[:m], rests[:m]
        _widen(base[a:b], wide[:m])
        total[:] = 0.0
        rest[:] = 0.0
        sums = total, rest, flags[:m]
        _add_block(models, a, wide[:m], (keys, start, limits), weights, words, keep, sums, kept)
        squares += _finish(
            base[a:b],
            wide[:m],
            models,
            a,
            total,
            rest,
            alpha,
            merged[:m],
            single[:m],
            extent,
            out[a:b],
        )
    return squares, _any(flags)


@jit
def _all_magnitudes(base, models, out):
    for t in range(models.shape[0]):
        for start in range(0, base.size, BLOCK):
            stop = min(base.size, start + BLOCK)
            wide = np.empty(stop - start, np.float32)
            _widen(base[start:stop], wide)
            _magnitudes(models[t, start:stop], wide, out[t, start:stop])


def magnitudes(base: np.ndarray, models: np.ndarray) -> np.ndarray:
    """See `plain.magnitudes`; for contiguous arrays of any shape."""
    out = np.empty(models.shape, np.float32)
    flat = out.reshape(len(models), -1)
    _all_magnitudes(base.reshape(-1), models.reshape(len(models), -1), flat)
    return out.view(np.uint32)


@jit
def _whole_extent(raw, out):
    _extent(raw, out)


def extent(raw: np.ndarray) -> tuple[float, float]:
    """See `plain.extent`."""
    pair = np.array(NO_EXTENT, np.uint32)
    _whole_extent(raw.reshape(-1), pair)
    return extent_of(pair, raw.dtype)


@jit
def _merge_all(base, total, rest, alpha, merged):
    for i in range(merged.size):
        nearest, lost = _two_sum(np.float64(_number(base[i])), alpha * total[i])
        if rest.size:
            nearest += lost + alpha * rest[i]
        merged[i] = nearest


def merge(base: np.ndarray, total: np.ndarray, rest: np.ndarray, alpha: float) -> np.ndarray:
    """See `plain.merge`."""
    merged = np.empty(base.size)
    _merge_all(base, total, rest, alpha, merged)
    return merged


@jit
def _round_all(merged, single, out):
    for start in range(0, merged.size, BLOCK):
        stop = min(merged.size, start + BLOCK)
        part = merged[start:stop]
        unusual = _count_unusual(part)
        _round(part, single[: stop - start], unusual, out[start:stop])


def round_to(merged: np.ndarray, dtype: str) -> np.ndarray:
    """See `plain.round_to`."""
    if dtype != "BF16" or merged.ndim != 1:
        return plain.round_to(merged, dtype)
    out = np.empty(merged.size, np.uint16)
    _round_all(np.ascontiguousarray(merged), np.empty(BLOCK, np.float32), out)
    return out.view(ml_dtypes.bfloat16)
