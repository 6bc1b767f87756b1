"""What stays of task vectors by the ranks of their entries, and what that comes to."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.constants import MEAN, SUBSETS
from breadcrumbs.kernels.exact import shares as shares_of
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
from breadcrumbs.kernels.numpy import chances as numpy_chances

#: Entries that are ranked at once, where units are smaller.
STEP = 2048


def keep_by_rank(base, model, unit: int, key, start: int, chances, divide, taus, kept) -> None:
    """See `Ranks.keep_by_rank`."""
    if not takes(base, taus, kept) or unit >= 1 << 32:
        how = unit, key, start, chances, divide, taus, kept
        return numpy_chances.keep_by_rank(base, model, *how)
    base, model, chances = flat(base), flat(model), flat(chances, np.float64)
    step = max(1, STEP // unit) * unit
    keys, chance = np.empty(step, np.uint32), np.empty(step)
    words, others = np.empty(unit, np.uint64), np.empty(unit, np.uint64)
    function("keep_by_rank", base.itemsize)(
        integer(base.size),
        at(base),
        at(model),
        integer(unit),
        integer(step),
        ctypes.c_uint64(int(key)),
        integer(start),
        at(chances),
        ctypes.c_int32(bool(divide)),
        at(taus),
        at(kept),
        at(keys),
        at(chance),
        at(words),
        at(others),
    )


def merge_by_rank(
    base,
    models,
    unit,
    drawn,
    divide,
    weights,
    kind,
    majority,
    signed,
    factor,
    extent,
    out,
    found,
    kept,
) -> float:
    """See `Elections.merge_by_rank`."""
    again = base, models, unit, drawn, divide, weights, kind, majority, signed, factor
    many = kind == MEAN and len(models) > SUBSETS
    if many or not takes(base, extent, out, found, kept) or unit >= 1 << 32:
        return numpy_chances.merge_by_rank(*again, extent, out, found, kept)
    keys, start, chances = drawn
    base, (models, stride) = flat(base), rows(models)
    keys, divide = flat(keys, np.uint64), flat(divide, np.uint8)
    chances, weights = flat(chances, np.float64), flat(weights, np.float64)
    shares = shares_of(weights, signed) if kind == MEAN else np.empty(1)
    step = max(1, STEP // unit) * unit
    ranked, chance = np.empty(step, np.uint32), np.empty(step)
    words, others = np.empty(unit, np.uint64), np.empty(unit, np.uint64)
    taus, marks = np.empty((len(models), step)), np.empty(step, np.uint8)
    counts, odd = np.zeros(len(models), np.int64), ctypes.c_int32()
    squares = function("merge_by_rank", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit),
        integer(step),
        at(keys),
        integer(start),
        at(chances),
        at(divide),
        at(weights),
        integer(kind),
        integer(majority),
        at(shares),
        number(factor),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        maybe(found),
        at(counts),
        at(taus),
        at(marks),
        at(ranked),
        at(chance),
        at(words),
        at(others),
        ctypes.byref(odd),
    )
    if odd.value:
        return numpy_chances.merge_by_rank(*again, extent, out, found, kept)
    kept += counts
    return squares
