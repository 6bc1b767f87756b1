"""Sums of what stays of task vectors by draws, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import ALL
from breadcrumbs.kernels.draws import draws
from breadcrumbs.kernels.numpy.parts import add, finish_all, ones_of, sums_of


def drawn(n, keys, start, limits, t) -> np.ndarray:
    """See `Sums.drawn`."""
    if not limits.size or limits[t] == ALL:
        return np.ones(n, np.bool_)
    return draws(keys[t], start, n) < limits[t]


def add_drawn(base, models, keys, start, limits, weights, total, rest, inexact, kept) -> None:
    """See `Sums.add_drawn`."""
    for t, model in enumerate(models):
        keep = drawn(base.size, keys, start, limits, t)
        if limits.size:
            kept[t] += np.count_nonzero(keep)
        add(base, model, keep, weights[t], total, rest, inexact)


def merge_drawn(
    base, models, keys, start, limits, weights, alpha: float, extent, out, kept
) -> tuple[float, bool]:
    """See `Sums.merge_drawn`."""
    sums = sums_of(base.size, weights)
    add_drawn(base, models, keys, start, limits, ones_of(models, weights), *sums, kept)
    return finish_all(base, models, sums, alpha, extent, out)
