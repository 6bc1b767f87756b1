"""Keys and their ranks."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.native.library import at, flat, function, integer, rows, takes
from breadcrumbs.kernels.numpy import ranks as numpy_ranks


def tally(base, models, chunk, brackets, counts, sizes, kept) -> None:
    """See `Ranks.tally`."""
    if not takes(base, counts, sizes) or kept.strides[1] != kept.itemsize:
        return numpy_ranks.tally(base, models, chunk, brackets, counts, sizes, kept)
    base, (models, stride) = flat(base), rows(models)
    brackets = flat(brackets, np.uint32)
    filled = np.zeros(len(models), np.int64)
    each, runs = (0, flat(chunk, np.int64)) if isinstance(chunk, np.ndarray) else (chunk, None)
    function("tally", base.itemsize)(
        integer(len(counts)),
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(each),
        None if runs is None else at(runs),
        at(brackets),
        at(counts),
        at(sizes),
        at(kept),
        integer(kept.shape[1]),
        integer(kept.strides[0] // kept.itemsize),
        at(filled),
    )


def magnitudes(base, models) -> np.ndarray:
    """See `Ranks.magnitudes`."""
    if not takes(base) or models.ndim != 2 or base.ndim != 1:
        return numpy_ranks.magnitudes(base, models)
    base, (models, stride) = flat(base), rows(models)
    out = np.empty(models.shape, np.uint32)
    sizes = integer(base.size), integer(len(models))
    function("magnitudes", base.itemsize)(*sizes, at(base), at(models), stride, at(out))
    return out


def key_of_rank(keys, rank: int, hint: int) -> int:
    """See `Ranks.key_of_rank`."""
    if keys.itemsize > 4 or not keys.flags.c_contiguous:
        return numpy_ranks.key_of_rank(keys, rank, hint)
    found = function("key_of_rank", 4, integer)
    return found(integer(keys.size), at(keys), integer(rank), integer(hint))


def select(keys, low, end, place: int) -> tuple[int, int]:
    """See `Ranks.select`."""
    if keys.itemsize > 4:
        return numpy_ranks.select(keys, low, end, place)
    keys = flat(keys)
    found = np.zeros(2, np.int64)
    bounds = integer(int(low)), integer(int(end))
    function("select", 4)(integer(keys.size), at(keys), *bounds, integer(place), at(found))
    return int(found[0]), int(found[1])


def cut_units(base, models, unit: int, first: int, last: int) -> np.ndarray:
    """See `Ranks.cut_units`."""
    if first >= last or not takes(base):
        return numpy_ranks.cut_units(base, models, unit, first, last)
    base, (models, stride) = flat(base), rows(models)
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
    if keys.itemsize > 4:
        return numpy_ranks.count_runs(keys, starts, sizes, low, key)
    keys = flat(keys)
    equal, below = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    starts, sizes = flat(starts, np.int64), flat(sizes, np.int64)
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
