"""Sums of what stays of task vectors."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.native.library import at, function, integer, number, rows


def merge_band(
    base, models, unit: int, cuts, weights, alpha: float, extent, out
) -> tuple[float, bool]:
    """See `Sums.merge_band`."""
    models, stride = rows(models)
    ties, found = np.empty((len(models), 2), np.int64), ctypes.c_int32()
    squares = function("merge_band", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit),
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
