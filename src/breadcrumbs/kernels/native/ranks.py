"""Keys and their ranks."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.native.library import at, function, integer, rows
from breadcrumbs.kernels.numpy import ranks as numpy_ranks


def tally(base, models, chunk, brackets, counts, sizes, kept) -> None:
    """See `Ranks.tally`."""
    models, stride = rows(models)
    filled = np.zeros(len(models), np.int64)
    runs = None if np.isscalar(chunk) else chunk
    function("tally", base.itemsize)(
        integer(len(counts)),
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(chunk if runs is None else 0),
        None if runs is None else at(runs),
        at(brackets),
        at(counts),
        at(sizes),
        at(kept),
        integer(kept.shape[1]),
        integer(kept.strides[0] // kept.itemsize),
        at(filled),
    )


def select(keys, low, end, place: int) -> tuple[int, int]:
    """See `Ranks.select`."""
    found = np.zeros(2, np.int64)
    bounds = integer(int(low)), integer(int(end))
    function("select", 4)(integer(keys.size), at(keys), *bounds, integer(place), at(found))
    return int(found[0]), int(found[1])


def cut_units(base, models, unit: int, first: int, last: int) -> np.ndarray:
    """See `Ranks.cut_units`."""
    if first >= last:
        return numpy_ranks.cut_units(base, models, unit, first, last)
    models, stride = rows(models)
    cuts = np.empty((base.size // unit, len(models), 4), np.int64)
    keys = np.empty(unit, np.int32)
    function("cut_units", base.itemsize)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit),
        integer(first),
        integer(last),
        at(keys),
        at(cuts),
    )
    return cuts


def count_runs(keys, starts, sizes, low: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """See `Ranks.count_runs`."""
    equal, below = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    starts, sizes = np.ascontiguousarray(starts), np.ascontiguousarray(sizes)
    function("count_runs", 4)(
        integer(len(sizes)),
        at(keys),
        at(starts),
        at(sizes),
        integer(low),
        integer(key),
        at(equal),
        at(below),
    )
    return equal, below
