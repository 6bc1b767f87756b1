"""Sums of what stays of task vectors by draws."""

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
from breadcrumbs.kernels.numpy import drops as numpy_drops


def add_drawn(base, models, keys, start, limits, weights, total, rest, inexact, kept) -> None:
    """See `Sums.add_drawn`."""
    if not takes(base, total, rest, inexact, kept):
        given = keys, start, limits, weights
        return numpy_drops.add_drawn(base, models, *given, total, rest, inexact, kept)
    base, (models, stride) = flat(base), rows(models)
    keys, limits = flat(keys, np.uint64), flat(limits, np.uint32)
    weights = flat(weights, np.float64)
    function("add_drawn", base.itemsize)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        at(keys),
        integer(start),
        maybe(limits),
        at(weights),
        at(total),
        maybe(rest),
        at(inexact),
        at(kept),
    )


def merge_drawn(
    base, models, keys, start, limits, weights, alpha: float, extent, out, kept
) -> tuple[float, bool]:
    """See `Sums.merge_drawn`."""
    if not takes(base, extent, out, kept):
        given = keys, start, limits, weights, alpha
        return numpy_drops.merge_drawn(base, models, *given, extent, out, kept)
    base, (models, stride) = flat(base), rows(models)
    keys, limits = flat(keys, np.uint64), flat(limits, np.uint32)
    weights, found = flat(weights, np.float64), ctypes.c_int32()
    squares = function("merge_drawn", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        at(keys),
        integer(start),
        maybe(limits),
        maybe(weights),
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        at(kept),
        ctypes.byref(found),
    )
    return squares, bool(found.value)
