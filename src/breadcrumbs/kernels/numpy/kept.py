"""Arithmetic on the entries that a task file keeps, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from breadcrumbs.kernels.constants import LONG
from breadcrumbs.kernels.numpy import parts, raw
from breadcrumbs.kernels.numpy.ranks import band, magnitudes


def from_bitmap(bitmap: np.ndarray, n: int, out: np.ndarray) -> int:
    """See `Kept.from_bitmap`."""
    bits = np.unpackbits(bitmap, bitorder="little")
    found = np.flatnonzero(bits)
    if found.size > out.size or bits[n:].any():
        return -1
    out[: found.size] = found
    return found.size


def from_gaps(gaps: np.ndarray, n: int, out: np.ndarray) -> int:
    """See `Kept.from_gaps`."""
    long = LONG[gaps.itemsize]
    ends = gaps != long
    if np.count_nonzero(ends) > out.size or (gaps.size and not ends[-1]):
        return -1
    positions = np.cumsum(gaps.astype(np.int64) + ends)[ends] - 1
    if positions.size and positions[-1] >= n:
        return -1
    out[: positions.size] = positions
    return positions.size


def from_planes(planes: Sequence[np.ndarray], out: np.ndarray) -> None:
    """See `Kept.from_planes`."""
    raw = out.view(np.uint8).reshape(out.size, out.itemsize)
    for j, plane in enumerate(planes):
        raw[:, j] = plane


def places(keep: np.ndarray, out: np.ndarray) -> int:
    """See `Kept.places`."""
    found = np.flatnonzero(keep)
    if found.size > out.size:
        return -1
    out[: found.size] = found
    return found.size


def take(values: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
    """See `Kept.take`."""
    out[:] = values[positions]


def fill(out: np.ndarray, start: int, positions: np.ndarray, values: np.ndarray) -> None:
    """See `Kept.fill`."""
    first, last = np.searchsorted(positions, (start, start + out.size))
    out[positions[first:last] - np.uint32(start)] = values[first:last]


def changed(base: np.ndarray, model: np.ndarray, keep: np.ndarray, cut: bool) -> None:
    """See `Kept.changed`."""
    kind = np.dtype(f"u{base.itemsize}")
    differs = base.view(kind) != model.view(kind)
    if not cut:
        keep[:] = differs
        return
    x, y = raw.widen(model), raw.widen(base)
    zeros = (x == 0) & (y == 0)
    keep[:] = differs & (zeros | (keep != 0))


def keep_band(base: np.ndarray, model: np.ndarray, unit: int, cuts, keep: np.ndarray) -> None:
    """See `Kept.keep_band`."""
    keys = magnitudes(base, model)
    for u, cut in enumerate(cuts):
        run = slice(u * unit, (u + 1) * unit)
        keep[run] = band(keys[run], cut)


def merge_kept(
    base, ends, positions, values, weights, alpha, extent, out, carried, last
) -> tuple[float, bool]:
    """See `Kept.merge_kept`."""
    total, rest = carried if carried.size else np.zeros((2, base.size))
    rest = rest if weights.size else rest[:0]
    inexact = np.zeros(rest.size, np.uint8)
    for t in range(len(ends) - 1):
        mine = slice(ends[t], ends[t + 1])
        at = positions[mine]
        weight = weights[t] if weights.size else 1.0
        own = [part[at] if part.size else part for part in (total, rest, inexact)]
        parts.add(base[at], values[mine], np.True_, weight, *own)
        total[at] = own[0]
        if weights.size:
            rest[at], inexact[at] = own[1:]
    raw.widen_extent(base, values, extent)
    if not last:
        return 0.0, bool(inexact.any())
    none = np.empty((0, base.size), base.dtype)
    return parts.finish_all(base, none, (total, rest, inexact), alpha, extent, out)


def zeros(values: np.ndarray) -> int:
    """See `Kept.zeros`."""
    return int(np.count_nonzero(raw.widen(values) == 0))


def product(left: np.ndarray, right: np.ndarray, start: int, out: np.ndarray) -> None:
    """See `Kept.product`."""
    rank, n = right.shape
    wide = right.astype(np.float64)
    at = 0
    while at < out.size:
        row, column = divmod(start + at, n)
        rows = max(1, min(1 << 15, out.size - at) // n) if not column else 1
        width = min(n - column, out.size - at) if rows == 1 else n
        columns = slice(column, column + width)
        total = np.zeros((rows, width))
        for k in range(rank):
            total += left[row : row + rows, k, None].astype(np.float64) * wide[k, columns]
        out[at : at + total.size] = total.reshape(-1)
        at += total.size
