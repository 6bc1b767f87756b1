"""The election of signs among terms with weights, as a Numba kernel.

With weights no sum is exact in one float64, so this goes by the steps of `terms`, block by block.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.numba.elections import _finish
from breadcrumbs.kernels.numba.steps import (
    _any,
    _bounds,
    _count_drawn,
    _draw,
    _number,
    _runs,
    _widen,
    jit,
)
from breadcrumbs.kernels.numba.terms import BLOCK, _add_model, _begin, _elect, _state
from breadcrumbs.kernels.numba.undecided import _sum_signs


@jit
def _cut(model, base, first, last, taus):
    for i in range(taus.size):
        x, y = _number(model[i]), base[i]
        magnitude = abs(x - y)
        tau = np.float64(x) - np.float64(y)
        taus[i] = tau if (magnitude >= first) & (magnitude <= last) else 0.0


@jit
def _drop(model, base, draws, limit, taus):
    for i in range(taus.size):
        tau = np.float64(_number(model[i])) - np.float64(base[i])
        taus[i] = tau if draws[i] < limit else 0.0


@jit
def _subtract(model, base, taus):
    for i in range(taus.size):
        taus[i] = np.float64(_number(model[i])) - np.float64(base[i])


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
    kept,
):
    """See `Elections.elect_weighted`."""
    n = base.size
    keys, start, limits = drawn
    words = np.empty(BLOCK // 2 + 1, np.uint64)
    wide_, single = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    taus_, steps, mergeds = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    state, inexact = _state(), np.zeros(BLOCK, np.uint8)
    bounds = np.empty(4, np.float32)
    ends, firsts, lasts = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    ties = np.empty((models.shape[0], 2), np.int64)
    squares, votes = 0.0, np.int64(0)
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
            wide, taus, step, wrong = wide_[:m], taus_[:m], steps[:m], inexact[:m]
            _begin(state)
            _widen(base[a:b], wide)
            for t in range(models.shape[0]):
                model = models[t, a:b]
                if cuts.shape[0]:
                    _bounds(cuts[u, t], bounds)
                    runs = _runs(model, wide, single, bounds, ties[t], ends, firsts, lasts)
                    i = 0
                    for r in range(runs):
                        j = ends[r]
                        _cut(model[i:j], wide[i:j], firsts[r], lasts[r], taus[i:j])
                        i = j
                elif limits.size:
                    _draw(keys[t], first // 2, limits[t], words)
                    kept[t] += _count_drawn(draws, limits[t])
                    _drop(model, wide, draws, limits[t], taus)
                else:
                    _subtract(model, wide, taus)
                _add_model(kind, taus, weights[t], t, state, wrong)
            _elect(kind, majority, shares, state, step, wrong)
            votes += _sum_signs(state[2][:m])
            squares += _finish(
                base[a:b],
                wide,
                models,
                a,
                step,
                alpha,
                mergeds[:m],
                single[:m],
                extent,
                out[a:b],
                found[a:b],
            )
    return squares, votes, _any(inexact)
