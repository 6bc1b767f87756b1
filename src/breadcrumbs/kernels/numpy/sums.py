"""Sums of what cuts keep of task vectors, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.numpy.parts import add, add_band, finish_all, ones_of, sums_of
from breadcrumbs.kernels.numpy.ranks import magnitudes


def merge_band(base, models, unit, cuts, weights, alpha: float, extent, out) -> tuple[float, bool]:
    """See `Sums.merge_band`."""
    sums = sums_of(base.size, weights)
    add_band(base, models, unit, cuts, ones_of(models, weights), *sums)
    return finish_all(base, models, sums, alpha, extent, out)


def begin_band(
    base,
    models,
    chunk: int,
    brackets,
    weights,
    alpha: float,
    extent,
    out,
    counts,
    doubts,
    where,
    columns,
) -> tuple[float, bool, int]:
    """See `Sums.begin_band`."""
    total, rest, inexact = sums_of(base.size, weights)
    doubtful = np.zeros(base.size, np.bool_)
    factors = ones_of(models, weights)
    for t, keys in enumerate(magnitudes(base, models)):
        low, low_end, high, high_end = brackets[t]
        sure = np.ones(base.size, np.bool_)
        if low <= low_end:
            sure &= keys > low_end
            doubtful |= (keys >= low) & (keys <= low_end)
        if high <= high_end:
            sure &= keys < high
            doubtful |= (keys >= high) & (keys <= high_end)
        for column, bound, end in ((0, low, low_end), (2, high, high_end)):
            if bound <= end:
                below = np.flatnonzero(keys < bound) // chunk
                counts[:, t, column] += np.bincount(below, minlength=len(counts))
        add(base, models[t], sure, factors[t], total, rest, inexact)
    total[doubtful] = 0.0
    if rest.size:
        rest[doubtful] = 0.0
    squares, unknown = finish_all(base, models, (total, rest, inexact), alpha, extent, out)
    places = np.flatnonzero(doubtful)
    doubts[:] = np.bincount(places // chunk, minlength=doubts.size)
    places = places[: where.size]
    where[: places.size] = places
    columns[0, : places.size], columns[1:, : places.size] = base[places], models[:, places]
    return squares, unknown, int(doubts.sum())
