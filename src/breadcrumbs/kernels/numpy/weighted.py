"""The election of signs among terms with weights, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LARGEST, MEAN
from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.kernels.numpy.drops import drawn
from breadcrumbs.kernels.numpy.ranks import kept_of
from breadcrumbs.kernels.numpy.raw import round_raw, widen, widen_extent


def elect_weighted(
    base,
    models,
    unit,
    cuts,
    drawn_,
    kind,
    majority,
    weights,
    shares,
    alpha,
    extent,
    out,
    found,
    kept,
) -> tuple[float, int, bool]:
    """See `Elections.elect_weighted`."""
    keys, start, limits = drawn_
    if len(cuts):
        keep = kept_of(base, models, unit, cuts)
    else:
        keep = [drawn(base.size, keys, start, limits, t) for t in range(len(models))]
        keep = np.array(keep, np.bool_).reshape(models.shape)
        kept += np.count_nonzero(keep, axis=1) if limits.size else 0
    wide = widen(base).astype(np.float64)
    sides, bits = np.zeros((2, 3, base.size)), np.zeros((2, base.size), np.int64)
    inexact = False
    for t, (model, mine) in enumerate(zip(models, keep, strict=True)):
        tau = np.where(mine, widen(model).astype(np.float64) - wide, 0.0)
        for (total, rest, extreme), voters, sign in zip(sides, bits, (1, -1), strict=True):
            term = np.maximum(sign * weights[t] * tau, 0.0)
            before = total.copy()
            total += term
            error = two_sum(before, term, total)
            before = rest.copy()
            rest += error
            inexact |= bool(two_sum(before, error, rest).any())
            np.maximum(extreme, term, out=extreme)
            voters |= (term > 0).astype(np.int64) << t
    (up, up_rest, highest), (down, down_rest, lowest) = sides
    total, rest = up - down, up_rest - down_rest
    error = two_sum(up, -down, total)
    inexact |= bool(two_sum(up_rest, -down_rest, rest).any())
    more = error + rest
    inexact |= bool(two_sum(error, rest, more).any())
    total = total + more
    wins = (total > 0) | ((total == 0) & (majority > 0))
    if kind == LARGEST:
        step = np.where(wins, highest, -lowest)
    else:
        step = np.where(wins, up + up_rest, -(down + down_rest))
    if kind == MEAN:
        share = shares[np.where(wins, *bits)]
        step /= np.where(share == 0, 1.0, share)
    if found.size:
        found[:] = step
    added = alpha * step
    round_raw(np.where(added == 0, wide, wide + added), out)
    widen_extent(base, models, extent)
    votes = int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
    return float(np.einsum("i,i->", step, step)), votes, inexact
