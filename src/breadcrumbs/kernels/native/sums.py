"""Sums of what stays of task vectors."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.native.library import (
    at,
    flat,
    function,
    integer,
    maybe,
    number,
    rows,
    takes,
)
from breadcrumbs.kernels.numpy import sums as numpy_sums


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
    settings = brackets, weights, alpha, extent, out, counts, doubts, where, columns
    if not takes(base, extent, out, counts, doubts, where, columns):
        return numpy_sums.begin_band(base, models, chunk, *settings)
    base, (models, stride) = flat(base), rows(models)
    brackets, weights = flat(brackets, np.uint32), flat(weights, np.float64)
    found = np.zeros(2, np.int64)
    squares = function("begin_band", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(chunk),
        at(brackets),
        maybe(weights),
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
    if not takes(base, extent, out):
        return numpy_sums.merge_band(base, models, unit, cuts, weights, alpha, extent, out)
    base, (models, stride) = flat(base), rows(models)
    cuts, weights = flat(cuts, np.int64), flat(weights, np.float64)
    each, runs = (0, flat(unit, np.int64)) if isinstance(unit, np.ndarray) else (unit, None)
    ties, found = np.empty((len(models), 2), np.int64), ctypes.c_int32()
    squares = function("merge_band", base.itemsize, number)(
        integer(len(cuts)),
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(each),
        None if runs is None else at(runs),
        at(cuts),
        at(ties),
        maybe(weights),
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        ctypes.byref(found),
    )
    return squares, bool(found.value)
