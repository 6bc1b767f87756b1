"""Sums of what stays of several small tensors, which lie one after the other."""

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
from breadcrumbs.kernels.numpy import several as numpy_several


def merge_several(
    base, models, sizes, ranks, keys, limits, kind, weights, alpha, extents, out, kept, squares
) -> np.ndarray:
    """See `Sums.merge_several`."""
    if not takes(base, extents, out, kept, squares):
        given = sizes, ranks, keys, limits, kind, weights, alpha
        return numpy_several.merge_several(base, models, *given, extents, out, kept, squares)
    base, (models, stride) = flat(base), rows(models)
    sizes, ranks = flat(sizes, np.int64), flat(ranks, np.int64)
    keys, limits = flat(keys, np.uint64), flat(limits, np.uint32)
    weights, inexact = flat(weights, np.float64), np.zeros(len(sizes), np.int32)
    units = int((sizes // ranks[:, 0]).max(initial=0)) if ranks.size else 0
    cuts = np.empty((units, len(models), 4), np.int64)
    room = np.empty(int(ranks[:, 0].max(initial=0)) if ranks.size else 0, np.int32)
    ties = np.empty((len(models), 2), np.int64)
    function("merge_several", base.itemsize)(
        integer(len(sizes)),
        at(sizes),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        maybe(ranks),
        at(cuts),
        at(room),
        at(ties),
        maybe(keys),
        maybe(limits),
        integer(kind),
        maybe(weights),
        number(alpha),
        at(extents),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        at(kept),
        at(squares),
        at(inexact),
    )
    return inexact != 0
