"""What stays of a task vector by the ranks of its entries, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.draws import draws
from breadcrumbs.kernels.numpy.ranks import magnitudes
from breadcrumbs.kernels.numpy.raw import widen


def keep_by_rank(base, model, unit: int, key, start: int, chances, divide, taus, kept) -> None:
    """See `Ranks.keep_by_rank`."""
    keys = magnitudes(base, model).reshape(-1, unit)
    ranks = np.empty(keys.shape, np.int64)
    order = np.argsort(keys, axis=1, kind="stable")
    np.put_along_axis(ranks, order, np.arange(unit)[None], axis=1)
    ranks = ranks.reshape(-1)
    limits = np.floor(chances * 2.0**32).astype(np.uint64)
    kept[:] = draws(key, start, base.size) < limits[ranks]
    np.subtract(widen(model), widen(base), out=taus, dtype=np.float64)
    if divide:
        taus /= chances[ranks]
    taus[~kept] = 0
