"""Sums of all of task vectors, rounded before they are added, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.kernels.numpy.parts import add, ones_of, settle, sums_of
from breadcrumbs.kernels.numpy.raw import round_raw, widen, widen_extent


def combine(base, models, own: float, weights, factor: float, extent, out) -> tuple[float, bool]:
    """See `Sums.combine`."""
    total, rest, inexact = sums_of(base.size, weights)
    for model, weight in zip(models, ones_of(models, weights), strict=True):
        _add_whole(base, model, weight, total, rest, inexact)
    if weights.size and own != 0:
        _add_whole(np.zeros_like(base), base, own, total, rest, inexact)
    if weights.size:
        settle(total, rest)
    step = factor * total
    wide = widen(base).astype(np.float64)
    round_raw(np.where(step == 0, wide, wide + step), out)
    widen_extent(base, models, extent)
    return float(np.einsum("i,i->", step, step)), bool(inexact.any())


def _add_whole(base, model, weight, total, rest, inexact) -> None:
    """Add all of a model; inexact also where the difference of two weights is."""
    add(base, model, np.True_, weight, total, rest, inexact)
    if rest.size:
        x, y = widen(model).astype(np.float64), widen(base).astype(np.float64)
        inexact |= two_sum(x, -y, x - y) != 0.0
