"""Sums of what stays of task vectors, as Numba kernels."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.numba.steps import (
    BLOCK,
    _add_all,
    _add_between,
    _add_drawn,
    _add_pair,
    _add_weighted,
    _any,
    _bounds,
    _count_drawn,
    _count_unusual,
    _draw,
    _extent,
    _keep_between,
    _keep_drawn,
    _magnitudes,
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


@jit
def add_band(base, models, unit, cuts, weights, total, rest, inexact):
    """See `Sums.add_band`."""
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
    """See `Sums.add_drawn`."""
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
    """Give exact zeros the sign that `Raw.sign_zeros` states."""
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
    """See `Sums.merge_band`."""
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
    """See `Sums.merge_drawn`."""
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
def _merge_all(base, total, rest, alpha, merged):
    for i in range(merged.size):
        nearest, lost = _two_sum(np.float64(_number(base[i])), alpha * total[i])
        if rest.size:
            nearest += lost + alpha * rest[i]
        merged[i] = nearest


def merge(base: np.ndarray, total: np.ndarray, rest: np.ndarray, alpha: float) -> np.ndarray:
    """See `Sums.merge`."""
    merged = np.empty(base.size)
    _merge_all(base, total, rest, alpha, merged)
    return merged


@jit
def _step(base, total, factor, step, merged):
    for i in range(merged.size):
        more = factor * total[i]
        step[i] = more
        merged[i] = np.float64(base[i]) + more if more != 0.0 else np.float64(base[i])


@jit
def combine(base, models, own, weights, factor, extent, out):
    """See `Sums.combine`."""
    n = base.size
    wide_, single = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    zero = np.zeros(BLOCK, np.float32)
    totals, rests, mergeds = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    inexact = False
    squares = 0.0
    for start in range(0, n, BLOCK):
        stop = min(n, start + BLOCK)
        m = stop - start
        wide, total, rest, merged = wide_[:m], totals[:m], rests[:m], mergeds[:m]
        _widen(base[start:stop], wide)
        total[:] = 0.0
        if weights.size:
            rest[:] = 0.0
            for t in range(models.shape[0]):
                inexact |= _add_weighted(models[t, start:stop], wide, weights[t], total, rest)
            if own != 0.0:
                inexact |= _add_weighted(base[start:stop], zero[:m], own, total, rest)
            _settle(total, rest)
        else:
            for t in range(models.shape[0]):
                _add_all(models[t, start:stop], wide, total)
        _step(wide, total, factor, rest, merged)
        _round(merged, single[:m], _count_unusual(merged), out[start:stop])
        _extent(base[start:stop], extent)
        for t in range(models.shape[0]):
            _extent(models[t, start:stop], extent)
        squares += _squares(rest)
    return squares, inexact
