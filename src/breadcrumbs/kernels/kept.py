"""Arithmetic on the entries that a task file keeps: what `kept_compiled` computes, in NumPy.

Positions are uint32 offsets, ascending; raw weights are as in `plain`. Both return the same bits.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels import plain
from breadcrumbs.kernels.plain import raw, sums

#: A gap of so many entries and no kept one after them, for gaps of 8 and of 16 bits.
LONG = {1: 255, 2: 65535}


def from_bitmap(bitmap: np.ndarray, n: int, out: np.ndarray) -> int:
    """Write the positions of the ones among the first n bits to ``out``; return how many.

    bitmap: uint8, the lowest bit of a byte first. -1 where there are more than ``out`` has room
    for, or a one after the first n.
    """
    bits = np.unpackbits(bitmap, bitorder="little")
    found = np.flatnonzero(bits)
    if found.size > out.size or bits[n:].any():
        return -1
    out[: found.size] = found
    return found.size


def from_gaps(gaps: np.ndarray, n: int, out: np.ndarray) -> int:
    """Write the positions that ``gaps`` mean to ``out``; return how many.

    gaps: uint8 or uint16; each but `LONG` is how many entries lie between two that are kept. -1
    where there are more than ``out`` has room for, or one is not below n, or the last is `LONG`.
    """
    long = LONG[gaps.itemsize]
    ends = gaps != long
    if np.count_nonzero(ends) > out.size or (gaps.size and not ends[-1]):
        return -1
    positions = np.cumsum(gaps.astype(np.int64) + ends)[ends] - 1
    if positions.size and positions[-1] >= n:
        return -1
    out[: positions.size] = positions
    return positions.size


def fill(out: np.ndarray, start: int, positions: np.ndarray, values: np.ndarray) -> None:
    """Set ``out[position - start]`` to its value, for the positions that ``out`` has."""
    first, last = np.searchsorted(positions, (start, start + out.size))
    out[positions[first:last] - np.uint32(start)] = values[first:last]


def changed(base: np.ndarray, model: np.ndarray, keep: np.ndarray, cut: bool) -> None:
    """Set uint8 ``keep`` to which entries a task file holds.

    Without ``cut`` all whose bits are not the base's. With it those kept already that differ from
    the base as numbers; and zeros of another sign than the base's, which carry no task vector but
    decide the sign of a merged zero.
    """
    kind = np.dtype(f"u{base.itemsize}")
    differs = base.view(kind) != model.view(kind)
    if not cut:
        keep[:] = differs
        return
    x, y = plain.widen(model), plain.widen(base)
    zeros = (x == 0) & (y == 0)
    keep[:] = differs & (zeros | (keep != 0))


def keep_band(base: np.ndarray, model: np.ndarray, unit: int, cuts, keep: np.ndarray) -> None:
    """Set uint8 ``keep`` to what the ``cuts`` (units, 4) keep of raw entries, unit by unit."""
    keys = plain.magnitudes(base, model)
    for u, cut in enumerate(cuts):
        run = slice(u * unit, (u + 1) * unit)
        keep[run] = plain.band(keys[run], cut)


def merge_kept(
    base, ends, positions, values, weights, alpha, extent, out, carried, last
) -> tuple[float, bool]:
    """Do as `plain.merge_drawn` for models that are the base but where they keep other weights.

    ends: (G + 1,) where the positions and raw values of each model begin and end. weights: (G,), or
    empty where all are 1. carried: (2, n) float64, what models of earlier calls add up to, changed
    in place, or (2, 0) where these are all models. last: whether to write to ``out``. The sign of a
    zero that all models hold is not looked for.
    """
    total, rest = carried if carried.size else np.zeros((2, base.size))
    rest = rest if weights.size else rest[:0]
    inexact = np.zeros(rest.size, np.uint8)
    for t in range(len(ends) - 1):
        mine = slice(ends[t], ends[t + 1])
        at = positions[mine]
        weight = weights[t] if weights.size else 1.0
        own = [part[at] if part.size else part for part in (total, rest, inexact)]
        sums.add(base[at], values[mine], np.True_, weight, *own)
        total[at] = own[0]
        if weights.size:
            rest[at], inexact[at] = own[1:]
    raw.widen_extent(base, values, extent)
    if not last:
        return 0.0, bool(inexact.any())
    none = np.empty((0, base.size), base.dtype)
    return sums.finish_all(base, none, (total, rest, inexact), alpha, extent, out)


def zeros(values: np.ndarray) -> int:
    """Return how many raw values are zeros."""
    return int(np.count_nonzero(plain.widen(values) == 0))


def product(left: np.ndarray, right: np.ndarray, start: int, out: np.ndarray) -> None:
    """Write entries of ``left right``, from flat position ``start`` on, to ``out`` (float64).

    left: (rows, rank) float32, right: (rank, n) float32. Products, which are exact, are added from
    the first of the rank to the last.
    """
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
