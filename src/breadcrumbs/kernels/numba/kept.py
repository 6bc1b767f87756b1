"""Arithmetic on the entries that a task file keeps, as Numba kernels."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LONG
from breadcrumbs.kernels.numba.steps import (
    BLOCK,
    _any,
    _bounds,
    _extent,
    _keep_between,
    _magnitudes,
    _number,
    _runs,
    _two_sum,
    _widen,
    jit,
)
from breadcrumbs.kernels.numba.sums import _finish

#: Of each byte, the places of its ones, and how many there are.
_PLACES = np.zeros((256, 8), np.uint32)
_ONES = np.zeros(256, np.int64)
for _byte in range(256):
    _found = [bit for bit in range(8) if _byte >> bit & 1]
    _PLACES[_byte, : len(_found)] = _found
    _ONES[_byte] = len(_found)


@jit
def _from_bitmap(bitmap, places, ones, n, out):
    k = 0
    for i in range(bitmap.size):
        byte = bitmap[i]
        first = np.uint32(8 * i)
        if k + 8 <= out.size:  # what is written beyond its ones is written again
            for j in range(8):
                out[k + j] = first + places[byte, j]
        elif k + ones[byte] <= out.size:
            for j in range(ones[byte]):
                out[k + j] = first + places[byte, j]
        else:
            return -1
        k += ones[byte]
    if k and out[k - 1] >= n:
        return -1
    return k


def from_bitmap(bitmap: np.ndarray, n: int, out: np.ndarray) -> int:
    """See `Kept.from_bitmap`."""
    return _from_bitmap(bitmap, _PLACES, _ONES, n, out)


@jit
def from_gaps(gaps, n, out):
    """See `Kept.from_gaps`."""
    long = 255 if gaps.itemsize == 1 else 65535
    k = 0
    at = np.int64(-1)
    for i in range(gaps.size):
        gap = np.int64(gaps[i])
        if gap == long:
            at += gap
            if at >= n or i == gaps.size - 1:
                return -1
            continue
        at += gap + 1
        if at >= n or k == out.size:
            return -1
        out[k] = at
        k += 1
    return k


@jit
def fill(out, start, positions, values):
    """See `Kept.fill`."""
    stop = start + out.size
    first = np.searchsorted(positions, start)
    for i in range(first, positions.size):
        at = np.int64(positions[i])
        if at >= stop:
            break
        out[at - start] = values[i]


@jit
def _changed_cut(base, model, keep):
    for i in range(keep.size):
        x, y = _number(model[i]), _number(base[i])
        both = (x == 0.0) & (y == 0.0) & (np.signbit(x) != np.signbit(y))
        keep[i] = np.uint8(((keep[i] != 0) & (x != y)) | both)


@jit
def _changed(base, model, keep):
    for i in range(keep.size):
        keep[i] = np.uint8(base[i] != model[i])


def changed(base: np.ndarray, model: np.ndarray, keep: np.ndarray, cut: bool) -> None:
    """See `Kept.changed`."""
    if cut:
        _changed_cut(base, model, keep)
    else:
        kind = np.dtype(f"u{base.itemsize}")
        _changed(base.view(kind), model.view(kind), keep)


@jit
def keep_band(base, model, unit, cuts, keep):
    """See `Kept.keep_band`."""
    n = base.size
    wide = np.empty(BLOCK, np.float32)
    magnitudes = np.empty(BLOCK, np.float32)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty(2, np.int64)
    for u in range(cuts.shape[0]):
        ties[0], ties[1] = cuts[u, 1], cuts[u, 3]
        _bounds(cuts[u], bounds)
        end = min(n, (u + 1) * unit)
        for start in range(u * unit, end, BLOCK):
            stop = min(end, start + BLOCK)
            size = stop - start
            mine = model[start:stop]
            _widen(base[start:stop], wide[:size])
            runs = _runs(mine, wide[:size], magnitudes, bounds, ties, ends, firsts, lasts)
            _magnitudes(mine, wide[:size], magnitudes[:size])
            i = 0
            for r in range(runs):
                j = ends[r]
                _keep_between(magnitudes[i:j], firsts[r], lasts[r], keep[start + i : start + j])
                i = j


@jit
def _add_kept(positions, values, i, end, start, wide, total):
    """Add the kept entries of one model in one block; return where the next block's begin."""
    stop = np.uint32(start + wide.size)
    first = np.uint32(start)
    while i < end and positions[i] < stop:
        at = positions[i] - first
        total[at] += np.float64(_number(values[i])) - np.float64(wide[at])
        i += 1
    return i


@jit
def _add_kept_pair(positions, values, i, end, start, wide, weight, total, rest, inexact):
    """Do as `_add_kept` with a weight, rounding errors going to ``rest``; as `_add_pair` has it."""
    stop = np.uint32(start + wide.size)
    first = np.uint32(start)
    while i < end and positions[i] < stop:
        at = positions[i] - first
        tau, lost = _two_sum(np.float64(_number(values[i])), -np.float64(wide[at]))
        total[at], error = _two_sum(total[at], weight * tau)
        middle, again = _two_sum(rest[at], error)
        rest[at], last = _two_sum(middle, weight * lost)
        inexact[at] |= np.uint8(again != 0.0) | np.uint8(last != 0.0)
        i += 1
    return i


@jit
def merge_kept(base, ends, positions, values, weights, alpha, extent, out, carried, last):
    """See `Kept.merge_kept`."""
    n = base.size
    pair = BLOCK if weights.size else 0
    wide_, single = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    fresh, merged = np.empty((2, BLOCK)), np.empty(BLOCK)
    flags = np.zeros(pair, np.uint8)
    none = np.empty((0, 0), base.dtype)
    at = ends[:-1].copy()
    squares = 0.0
    for start in range(0, n, BLOCK):
        stop = min(n, start + BLOCK)
        m = stop - start
        wide = wide_[:m]
        if carried.shape[1]:
            total, rest = carried[0, start:stop], carried[1, start : start + min(m, pair)]
        else:
            total, rest = fresh[0, :m], fresh[1, : min(m, pair)]
            total[:] = 0.0
            rest[:] = 0.0
        _widen(base[start:stop], wide)
        for t in range(at.size):
            mine = positions, values, at[t], ends[t + 1], start, wide
            if pair:
                at[t] = _add_kept_pair(*mine, weights[t], total, rest, flags[:m])
            else:
                at[t] = _add_kept(*mine, total)
        if last:
            squares += _finish(
                base[start:stop],
                wide,
                none,
                start,
                total,
                rest,
                alpha,
                merged[:m],
                single[:m],
                extent,
                out[start:stop],
            )
    _extent(values, extent)
    return squares, _any(flags)


@jit
def zeros(values):
    """See `Kept.zeros`."""
    n = 0
    for i in range(values.size):
        n += _number(values[i]) == 0.0
    return n


assert LONG == {1: 255, 2: 65535}


@jit
def _add_row(factor, row, out):
    for j in range(out.size):
        out[j] += factor * np.float64(row[j])


@jit
def product(left, right, start, out):
    """See `Kept.product`."""
    rank, n = right.shape
    out[:] = 0.0
    at = 0
    while at < out.size:
        row = (start + at) // n
        column = (start + at) % n
        width = min(min(n - column, out.size - at), 1024)  # stays in the fastest cache
        for k in range(rank):
            factor = np.float64(left[row, k])
            _add_row(factor, right[k, column : column + width], out[at : at + width])
        at += width
