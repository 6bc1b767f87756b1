"""Inner products of weights, in an order of addition that no processor changes."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LANES
from breadcrumbs.kernels.native.library import at, flat, function, integer, rows, takes
from breadcrumbs.kernels.numpy.products import products as numpy_products
from breadcrumbs.kernels.numpy.products import row_products as numpy_row_products

#: Numbers that C keeps of a row at once.
ROOM = 8 * 64 + 8


def products(base, models, out) -> None:
    """See `Products.products`."""
    if not takes(base, out):
        return numpy_products(base, models, out)
    base, (models, stride) = flat(base), rows(models)
    number = 1 + len(models)
    room, lanes = np.empty((number, ROOM)), np.empty((number, number, LANES))
    function("products", base.itemsize)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        at(room),
        at(lanes),
        at(out),
    )


def row_products(given, out) -> None:
    """See `Products.row_products`."""
    if given.dtype != np.float64 or not (out.flags.c_contiguous and out.flags.aligned):
        return numpy_row_products(given, out)
    given, stride = rows(given)
    lanes = np.empty((len(given), len(given), LANES))
    function("row_products", 4)(
        integer(given.shape[1]), integer(len(given)), at(given), stride, at(lanes), at(out)
    )
