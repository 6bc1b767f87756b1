"""What stays of a task vector by the ranks of its entries."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.native.library import at, flat, function, integer, takes
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
