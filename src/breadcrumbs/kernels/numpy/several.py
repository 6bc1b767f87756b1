"""Sums of what stays of several small tensors, which lie one after the other."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.numpy.drops import merge_drawn
from breadcrumbs.kernels.numpy.ranks import cut_units
from breadcrumbs.kernels.numpy.sums import merge_band


def merge_several(
    base, models, sizes, ranks, keys, limits, weights, alpha: float, extents, out, kept, squares
) -> np.ndarray:
    """See `Sums.merge_several`."""
    inexact, at = np.zeros(len(sizes), np.bool_), 0
    for j, n in enumerate(sizes.tolist()):
        part = slice(at, at + n)
        at += n
        given, settings = (base[part], models[:, part]), (weights, alpha, extents[j], out[part])
        if len(ranks):
            unit, first, last = ranks[j].tolist()
            cuts = cut_units(*given, unit, first, last)
            squares[j], inexact[j] = merge_band(*given, unit, cuts, *settings)
        else:
            drawn = keys[j] if limits.size else keys, 0, limits
            squares[j], inexact[j] = merge_drawn(*given, *drawn, *settings, kept[j])
    return inexact
