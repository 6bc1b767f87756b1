"""The election of signs among terms with weights."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.constants import MEAN
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
from breadcrumbs.kernels.numpy import weighted as numpy_weighted


def elect_weighted(
    base,
    models,
    unit,
    cuts,
    drawn,
    kind,
    majority,
    weights,
    shares,
    alpha,
    extent,
    out,
    found,
    kept,
) -> tuple[float, int, bool]:
    """See `Elections.elect_weighted`."""
    if not takes(base, extent, out, found, kept) or (kind == MEAN and len(models) > 32):
        how = unit, cuts, drawn, kind, majority, weights, shares, alpha
        return numpy_weighted.elect_weighted(base, models, *how, extent, out, found, kept)
    keys, start, limits = drawn
    base, (models, stride), cuts = flat(base), rows(models), flat(cuts, np.int64)
    keys, limits = flat(keys, np.uint64), flat(limits, np.uint32)
    weights, shares = flat(weights, np.float64), flat(shares, np.float64)
    ties, told = np.empty((len(models), 2), np.int64), np.zeros(2, np.int64)
    squares = function("elect_weighted", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit),
        integer(len(cuts)),
        at(cuts),
        at(ties),
        at(keys),
        integer(start),
        maybe(limits),
        integer(kind),
        integer(majority),
        at(weights),
        at(shares),
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        maybe(found),
        at(kept),
        at(told),
    )
    return squares, int(told[1]), bool(told[0])
