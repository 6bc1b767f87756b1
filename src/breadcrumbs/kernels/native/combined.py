"""Sums of all of task vectors, rounded before they are added."""

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
from breadcrumbs.kernels.numpy import combined as numpy_combined


def combine(base, models, own: float, weights, factor: float, extent, out) -> tuple[float, bool]:
    """See `Sums.combine`."""
    if not takes(base, extent, out):
        return numpy_combined.combine(base, models, own, weights, factor, extent, out)
    base, (models, stride) = flat(base), rows(models)
    weights, found = flat(weights, np.float64), ctypes.c_int32()
    squares = function("combine", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        number(own),
        maybe(weights),
        number(factor),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        ctypes.byref(found),
    )
    return squares, bool(found.value)
