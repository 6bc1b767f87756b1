"""Sums of what stays of several small tensors, which lie one after the other."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import TOTAL
from breadcrumbs.kernels.numpy.drops import merge_drawn
from breadcrumbs.kernels.numpy.elections import elect_band, elect_drawn
from breadcrumbs.kernels.numpy.ranks import cut_units
from breadcrumbs.kernels.numpy.sums import merge_band

_NOWHERE = np.empty(0, np.uint32)


def merge_several(
    base, models, sizes, ranks, keys, limits, kind, weights, alpha, extents, out, kept, squares
) -> np.ndarray:
    """See `Sums.merge_several`."""
    inexact, at = np.zeros(len(sizes), np.bool_), 0
    for j, n in enumerate(sizes.tolist()):
        part = slice(at, at + n)
        at += n
        given, settings = (base[part], models[:, part]), (weights, alpha, extents[j], out[part])
        how = kind, 1, alpha, extents[j], out[part], np.empty(0)
        if len(ranks):
            unit, first, last = ranks[j].tolist()
            cuts = cut_units(*given, unit, first, last)
            if kind == TOTAL:
                squares[j], inexact[j] = merge_band(*given, unit, cuts, *settings)
            else:
                squares[j] = elect_band(*given, unit, cuts, *how, _NOWHERE, out[:0])[0]
        else:
            drawn = keys[j] if limits.size else keys, 0, limits
            if kind == TOTAL:
                squares[j], inexact[j] = merge_drawn(*given, *drawn, *settings, kept[j])
            else:
                squares[j] = elect_drawn(*given, *drawn, *how, kept[j])
    return inexact
