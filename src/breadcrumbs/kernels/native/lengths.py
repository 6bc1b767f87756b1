"""Lengths of a step and of the task vectors it is made of."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.native.library import at, flat, function, integer, number, rows, takes
from breadcrumbs.kernels.numpy.lengths import LANES
from breadcrumbs.kernels.numpy.lengths import lengths as numpy_lengths
from breadcrumbs.kernels.numpy.lengths import squares as numpy_squares


def lengths(base, models, weights, others, merged, out) -> None:
    """See `Products.lengths`."""
    if not takes(base, out) or merged.dtype != np.float32:
        return numpy_lengths(base, models, weights, others, merged, out)
    base, (models, stride), merged = flat(base), rows(models), flat(merged)
    weights, others = flat(weights, np.float64), flat(others, np.float64)
    room = np.zeros((3 + len(models), LANES))
    function("lengths", base.itemsize)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        at(weights),
        at(others) if (others != weights).any() else None,
        at(merged),
        at(room),
        at(out),
    )


def squares(base, model) -> float:
    """See `Products.squares`."""
    if not takes(base):
        return numpy_squares(base, model)
    base, model = flat(base), flat(model)
    return function("squares", base.itemsize, number)(integer(base.size), at(base), at(model))
