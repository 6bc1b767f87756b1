"""Arithmetic on the entries that a task file keeps."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from breadcrumbs.kernels.native.library import (
    at,
    flat,
    function,
    integer,
    maybe,
    number,
    takes,
)
from breadcrumbs.kernels.numpy import kept as numpy_kept

#: Of each byte, the places of its ones, and how many these are.
_PLACES = np.zeros((256, 8), np.uint32)
_ONES = np.zeros(256, np.uint8)
for _byte in range(256):
    _found = [bit for bit in range(8) if _byte >> bit & 1]
    _PLACES[_byte, : len(_found)] = _found
    _ONES[_byte] = len(_found)


_NONE = np.empty(0, np.uint16)


def from_bitmap(bitmap: np.ndarray, n: int, out: np.ndarray) -> int:
    """See `Kept.from_bitmap`."""
    if not takes(out, out):
        return numpy_kept.from_bitmap(bitmap, n, out)
    bitmap = flat(bitmap)
    return function("from_bitmap", 4, integer)(
        integer(bitmap.size),
        at(bitmap),
        at(_PLACES),
        at(_ONES),
        integer(n),
        integer(out.size),
        at(out),
    )


def from_gaps(gaps: np.ndarray, n: int, out: np.ndarray) -> int:
    """See `Kept.from_gaps`."""
    if not takes(out, out):
        return numpy_kept.from_gaps(gaps, n, out)
    gaps = flat(gaps)
    return function("from_gaps", 4, integer)(
        integer(gaps.size),
        at(gaps),
        integer(gaps.itemsize),
        integer(n),
        integer(out.size),
        at(out),
    )


def from_planes(planes: Sequence[np.ndarray], out: np.ndarray) -> None:
    """See `Kept.from_planes`."""
    if out.itemsize not in (2, 4) or not takes(_NONE, out):
        return numpy_kept.from_planes(planes, out)
    planes = [flat(plane) for plane in planes]
    pointers = (ctypes.c_void_p * len(planes))(*[at(plane).value for plane in planes])
    function("from_planes", out.itemsize)(integer(out.size), pointers, at(out))


def places(keep: np.ndarray, out: np.ndarray) -> int:
    """See `Kept.places`."""
    if not takes(out, out):
        return numpy_kept.places(keep, out)
    keep = flat(keep, np.uint8)
    found = function("places", 4, integer)
    return found(integer(keep.size), at(keep), integer(out.size), at(out))


def take(values: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
    """See `Kept.take`."""
    if not takes(values, out) or out.dtype != values.dtype:
        return numpy_kept.take(values, positions, out)
    values, positions = flat(values), flat(positions, np.uint32)
    function("take", values.itemsize)(integer(out.size), at(values), at(positions), at(out))


def fill(out: np.ndarray, start: int, positions: np.ndarray, values: np.ndarray) -> None:
    """See `Kept.fill`."""
    if not takes(out, out) or out.itemsize < 2 or out.dtype != values.dtype:
        return numpy_kept.fill(out, start, positions, values)
    positions, values = flat(positions, np.uint32), flat(values)
    function("fill", out.itemsize)(
        integer(out.size),
        at(out),
        integer(start),
        integer(positions.size),
        at(positions),
        at(values),
    )


def changed(base: np.ndarray, model: np.ndarray, keep: np.ndarray, cut: bool) -> None:
    """See `Kept.changed`."""
    if not takes(base, keep):
        return numpy_kept.changed(base, model, keep, cut)
    base, model = flat(base), flat(model)
    name = "changed_cut" if cut else "changed"
    function(name, base.itemsize)(integer(base.size), at(base), at(model), at(keep))


def keep_band(base: np.ndarray, model: np.ndarray, unit: int, cuts, keep: np.ndarray) -> None:
    """See `Kept.keep_band`."""
    if not takes(base, keep):
        return numpy_kept.keep_band(base, model, unit, cuts, keep)
    base, model, cuts = flat(base), flat(model), flat(cuts, np.int64)
    function("keep_band", base.itemsize)(
        integer(base.size),
        at(base),
        at(model),
        integer(unit),
        integer(len(cuts)),
        at(cuts),
        at(keep),
    )


def merge_kept(
    base, ends, positions, values, weights, alpha, extent, out, carried, last
) -> tuple[float, bool]:
    """See `Kept.merge_kept`."""
    if not takes(base, extent, out, carried):
        how = ends, positions, values, weights, alpha, extent, out, carried, last
        return numpy_kept.merge_kept(base, *how)
    base, ends, values = flat(base), np.array(ends, np.int64), flat(values)
    positions, weights = flat(positions, np.uint32), flat(weights, np.float64)
    first, found = ends.copy(), ctypes.c_int32()
    after = ends[1:]
    squares = function("merge_kept", base.itemsize, number)(
        integer(base.size),
        integer(len(after)),
        at(base),
        at(first),
        at(after),
        at(positions),
        at(values),
        maybe(weights),
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        maybe(carried),
        ctypes.c_int32(bool(last)),
        ctypes.byref(found),
    )
    return squares, bool(found.value)


def zeros(values: np.ndarray) -> int:
    """See `Kept.zeros`."""
    if not takes(values):
        return numpy_kept.zeros(values)
    values = flat(values)
    return function("zeros", values.itemsize, integer)(integer(values.size), at(values))


def product(left: np.ndarray, right: np.ndarray, start: int, out: np.ndarray) -> None:
    """See `Kept.product`."""
    if not (out.flags.c_contiguous and out.flags.aligned and out.dtype == np.float64):
        return numpy_kept.product(left, right, start, out)
    left, right = flat(left, np.float32), flat(right, np.float32)
    function("product", 4)(
        integer(out.size),
        integer(right.shape[0]),
        integer(right.shape[1]),
        at(left),
        at(right),
        integer(start),
        at(out),
    )
