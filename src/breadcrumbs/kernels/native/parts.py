"""The parts that sums of task vectors are merged in."""

from __future__ import annotations

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
from breadcrumbs.kernels.numpy import parts as numpy_parts


def add_band(base, models, unit: int, cuts, weights, total, rest, inexact) -> None:
    """See `Sums.add_band`."""
    if isinstance(unit, np.ndarray) or not takes(base, total, rest, inexact):
        return numpy_parts.add_band(base, models, unit, cuts, weights, total, rest, inexact)
    base, (models, stride) = flat(base), rows(models)
    cuts, weights = flat(cuts, np.int64), flat(weights, np.float64)
    ties = np.empty((len(models), 2), np.int64)
    function("add_band", base.itemsize)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit),
        integer(len(cuts)),
        at(cuts),
        at(ties),
        at(weights),
        at(total),
        maybe(rest),
        at(inexact),
    )


def settle(total, rest) -> None:
    """See `Sums.settle`."""
    if not (total.flags.carray and rest.flags.carray):
        return numpy_parts.settle(total, rest)
    function("settle", 4)(integer(total.size), at(total), at(rest))


def merge(base, total, rest, alpha: float) -> np.ndarray:
    """See `Sums.merge`."""
    if not takes(base):
        return numpy_parts.merge(base, total, rest, alpha)
    merged = np.empty(base.size)
    base, total, rest = flat(base), flat(total, np.float64), flat(rest, np.float64)
    function("merge", base.itemsize)(
        integer(base.size), at(base), at(total), maybe(rest), number(alpha), at(merged)
    )
    return merged
