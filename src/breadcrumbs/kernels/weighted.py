"""The election of signs among terms with weights, as a Numba kernel; `plain` states it in NumPy.

With weights no sum is exact in one float64: the terms above 0 are added up in pairs of numbers, and
so are those below. Which models have a term on each side is noted in bits, for the mean divides by
a sum of their weights that is looked up.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.elections import BLOCK, _cut, _drop, _finish
from breadcrumbs.kernels.plain import LARGEST, MEAN
from breadcrumbs.kernels.steps import _bounds, _count_drawn, _draw, _runs, _widen, jit


@jit
def _add_up(kept, wide, weight, bit, total, rest, extreme, voters):
    """Add what is above 0 of ``weight * (kept - wide)``; return whether a sum is inexact."""
    inexact = False
    for i in range(kept.size):
        term = weight * (np.float64(kept[i]) - np.float64(wide[i]))
        up = term > 0.0
        term = term if up else 0.0
        before = total[i]
        after = before + term
        back = after - before
        error = (before - (after - back)) + (term - back)
        total[i] = after
        before = rest[i]
        after = before + error
        back = after - before
        inexact |= (before - (after - back)) + (error - back) != 0.0
        rest[i] = after
        extreme[i] = term if term > extreme[i] else extreme[i]
        voters[i] |= bit if up else np.uint32(0)
    return inexact


@jit
def _take(kind, majority, ups, downs, shares, step):
    """Turn both sides into the step of every entry; return whether a sign may be wrong."""
    up, up_rest, highest, above = ups
    down, down_rest, lowest, below = downs
    inexact = False
    for i in range(step.size):
        total = up[i] - down[i]
        back = total - up[i]
        error = (up[i] - (total - back)) - (down[i] + back)
        rest = up_rest[i] - down_rest[i]
        back = rest - up_rest[i]
        inexact |= (up_rest[i] - (rest - back)) - (down_rest[i] + back) != 0.0
        more = error + rest
        back = more - error
        inexact |= (error - (more - back)) + (rest - back) != 0.0
        total += more
        wins = total > 0.0 or (total == 0.0 and majority > 0)
        if kind == LARGEST:
            step[i] = highest[i] if wins else -lowest[i]
            continue
        found = up[i] + up_rest[i] if wins else -(down[i] + down_rest[i])
        if kind == MEAN:
            share = shares[above[i] if wins else below[i]]
            found /= share if share != 0.0 else 1.0
        step[i] = found
    return inexact


@jit
def elect_weighted(
    base,
    models,
    unit,
    cuts,
    drawn,
    kind,
    majority,
    weights,
    shares,
    alpha,
    extent,
    out,
    found,
    kept_number,
):
    """See `plain.elect_weighted`."""
    n = base.size
    keys, start, limits = drawn
    words = np.empty(BLOCK // 2 + 1, np.uint64)
    wide_, kept_ = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    steps, mergeds = np.empty(BLOCK), np.empty(BLOCK)
    sides = np.empty((6, BLOCK))
    voters = np.empty((2, BLOCK), np.uint32)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty((models.shape[0], 2), np.int64)
    squares = 0.0
    inexact = False
    for u in range(max(1, cuts.shape[0])):
        if cuts.shape[0]:
            ties[:, 0] = cuts[u, :, 1]
            ties[:, 1] = cuts[u, :, 3]
        end = min(n, (u + 1) * unit)
        for a in range(u * unit, end, BLOCK):
            b = min(end, a + BLOCK)
            m = b - a
            first = start + a
            draws = words.view(np.uint32)[first % 2 : first % 2 + m]
            wide, kept, step = wide_[:m], kept_[:m], steps[:m]
            sides[:] = 0.0
            voters[:] = 0
            ups = sides[0, :m], sides[1, :m], sides[2, :m], voters[0, :m]
            downs = sides[3, :m], sides[4, :m], sides[5, :m], voters[1, :m]
            _widen(base[a:b], wide)
            for t in range(models.shape[0]):
                model = models[t, a:b]
                if cuts.shape[0]:
                    _bounds(cuts[u, t], bounds)
                    runs = _runs(model, wide, kept, bounds, ties[t], ends, firsts, lasts)
                    i = 0
                    for r in range(runs):
                        j = ends[r]
                        _cut(model[i:j], wide[i:j], firsts[r], lasts[r], kept[i:j])
                        i = j
                elif limits.size:
                    _draw(keys[t], first // 2, limits[t], words)
                    kept_number[t] += _count_drawn(draws, limits[t])
                    _drop(model, wide, draws, limits[t], kept)
                else:
                    _widen(model, kept)
                bit = np.uint32(1) << np.uint32(t)
                inexact |= _add_up(kept, wide, weights[t], bit, *ups)
                inexact |= _add_up(kept, wide, -weights[t], bit, *downs)
            inexact |= _take(kind, majority, ups, downs, shares, step)
            squares += _finish(
                base[a:b],
                wide,
                models,
                a,
                step,
                alpha,
                mergeds[:m],
                kept,
                extent,
                out[a:b],
                found[a:b],
            )
    return squares, inexact
