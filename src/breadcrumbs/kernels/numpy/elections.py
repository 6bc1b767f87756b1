"""Elections of signs among what stays of task vectors, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LARGEST, MEAN
from breadcrumbs.kernels.numpy.drops import drawn
from breadcrumbs.kernels.numpy.ranks import kept_of
from breadcrumbs.kernels.numpy.raw import round_raw, widen, widen_extent


def elect_band(
    base,
    models,
    unit: int,
    cuts,
    kind: int,
    majority: int,
    alpha: float,
    extent,
    out,
    found,
    where,
    other,
) -> tuple[float, int, int, float]:
    """See `Elections.elect_band`."""
    keep = kept_of(base, models, unit, cuts)
    squares = _elect_all(base, models, keep, kind, majority, alpha, extent, out, found)
    if not where.size:
        return squares, 0, 0, 0.0
    terms = np.where(keep, widen(models).astype(np.float64) - widen(base).astype(np.float64), 0.0)
    total = terms.sum(axis=0)
    votes = int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
    undecided = np.flatnonzero((total == 0) & terms.any(axis=0))
    again = np.empty_like(out)
    rest = kind, -majority, alpha, extent, again, np.empty(0)
    more = _elect_all(base, models, keep, *rest) - squares
    room = undecided[: where.size]
    where[: room.size], other[: room.size] = room, again[room]
    return squares, votes, undecided.size, more


def elect_drawn(
    base, models, keys, start, limits, kind, majority, alpha: float, extent, out, found, kept
) -> float:
    """See `Elections.elect_drawn`."""
    keep = [drawn(base.size, keys, start, limits, t) for t in range(len(models))]
    keep = np.array(keep, np.bool_).reshape(models.shape)
    if limits.size:
        kept += np.count_nonzero(keep, axis=1)
    return _elect_all(base, models, keep, kind, majority, alpha, extent, out, found)


def _elect_all(base, models, keep, kind, majority, alpha, extent_bits, out, found) -> float:
    wide = widen(base).astype(np.float64)
    total, size, above, below = (np.zeros(base.size) for _ in range(4))
    highest, lowest = total, total
    for model, mine in zip(models, keep, strict=True):
        term = np.where(mine, widen(model).astype(np.float64) - wide, 0.0)
        total = total + term
        size += np.abs(term)
        above += term > 0
        below += term < 0
        highest, lowest = np.maximum(highest, term), np.minimum(lowest, term)
    up = (total > 0) | ((total == 0) & (majority > 0))
    if kind == LARGEST:
        step = np.where(up, highest, lowest)
    else:  # the terms of one sign are half of what all and their magnitudes come to
        step = 0.5 * (total + np.where(up, size, -size))
    if kind == MEAN:
        step /= np.maximum(np.where(up, above, below), 1.0)
    if found.size:
        found[:] = step
    added = alpha * step
    round_raw(np.where(added == 0, wide, wide + added), out)
    widen_extent(base, models, extent_bits)
    return float(np.einsum("i,i->", step, step))
