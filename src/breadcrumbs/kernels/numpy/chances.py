"""What stays of task vectors by the ranks of their entries, and what that comes to, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import TOTAL
from breadcrumbs.kernels.draws import draws
from breadcrumbs.kernels.numpy.ranks import magnitudes
from breadcrumbs.kernels.numpy.raw import round_raw, widen, widen_extent
from breadcrumbs.kernels.numpy.terms import add_step, elected, exact_sum


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
    keys, start, chances = drawn
    taus, stays = np.empty(models.shape), np.empty(models.shape, np.bool_)
    for t, model in enumerate(models):
        mine = keys[t], start, chances[t], divide[t]
        keep_by_rank(base, model, unit, *mine, taus[t], stays[t])
    if kind == TOTAL:
        total = exact_sum(taus, weights)
    else:
        total = elected(taus, weights, kind, majority, signed)
    kept += np.count_nonzero(stays, axis=1)
    if found.size:
        found[:] = total
    step = factor * total
    round_raw(add_step(widen(base).astype(np.float64), step), out)
    widen_extent(base, models, extent)
    return float(np.einsum("i,i->", step, step))
