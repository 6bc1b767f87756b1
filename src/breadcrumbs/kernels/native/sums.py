"""Sums of what stays of task vectors."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.native.library import at, function, integer, number, rows


def begin_band(
    base,
    models,
    chunk: int,
    brackets,
    weights,
    alpha: float,
    extent,
    out,
    counts,
    doubts,
    where,
    columns,
) -> tuple[float, bool, int]:
    """See `Sums.begin_band`."""
    models, stride = rows(models)
    found = np.zeros(2, np.int64)
    squares = function("begin_band", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(chunk),
        at(brackets),
        at(weights) if weights.size else None,
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        at(counts),
        at(doubts),
        at(where),
        at(columns),
        integer(columns.shape[1]),
        at(found),
    )
    return squares, bool(found[0]), int(found[1])


def merge_band(base, models, unit, cuts, weights, alpha: float, extent, out) -> tuple[float, bool]:
    """See `Sums.merge_band`."""
    models, stride = rows(models)
    runs = None if np.isscalar(unit) else unit
    ties, found = np.empty((len(models), 2), np.int64), ctypes.c_int32()
    squares = function("merge_band", base.itemsize, number)(
        integer(len(cuts)),
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit if runs is None else 0),
        None if runs is None else at(runs),
        at(cuts),
        at(ties),
        at(weights) if weights.size else None,
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        ctypes.byref(found),
    )
    return squares, bool(found.value)
