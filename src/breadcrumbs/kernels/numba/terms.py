"""Exact sums and elections of float64 terms, as Numba kernels.

Sums are kept as pairs of numbers. Where a pair does not hold one exactly, which takes terms of very
different magnitudes, the entry is done once more by NumPy's.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LARGEST, MEAN, SUBSETS
from breadcrumbs.kernels.exact import shares as shares_of
from breadcrumbs.kernels.numba.steps import _two_sum, inline, jit
from breadcrumbs.kernels.numpy import terms as numpy_terms

BLOCK = 1024


# --- steps: each one loop over one block -----------------------------------------------------


@jit
def _add(taus, weight, total, rest, inexact):
    for i in range(taus.size):
        total[i], error = _two_sum(total[i], weight * taus[i])
        rest[i], again = _two_sum(rest[i], error)
        inexact[i] |= np.uint8(again != 0.0)


@jit
def _add_up(total, rest):
    for i in range(total.size):
        total[i] += rest[i]


@jit
def _add_sides(taus, weight, up, up_rest, down, down_rest, inexact):
    """Add terms above 0 to one pair, and the magnitudes of those below to the other."""
    for i in range(taus.size):
        term = weight * taus[i]
        above = term > 0.0
        size = abs(term)
        high, high_rest, low, low_rest = up[i], up_rest[i], down[i], down_rest[i]
        after, error = _two_sum(high if above else low, size)
        up[i] = after if above else high
        down[i] = low if above else after
        after, again = _two_sum(high_rest if above else low_rest, error)
        up_rest[i] = after if above else high_rest
        down_rest[i] = low_rest if above else after
        inexact[i] |= np.uint8(again != 0.0)


@jit
def _note(taus, weight, bit, above, below):
    """Note which models have a term above 0, and which below."""
    for i in range(taus.size):
        term = weight * taus[i]
        above[i] |= bit if term > 0.0 else np.uint32(0)
        below[i] |= bit if term < 0.0 else np.uint32(0)


@jit
def _stretch(taus, weight, highest, lowest):
    for i in range(taus.size):
        term = weight * taus[i]
        highest[i] = max(highest[i], term)
        lowest[i] = min(lowest[i], term)


@jit
def _compare(up, up_rest, down, down_rest, signs, inexact):
    """Write a number of the sign of the sum of all terms."""
    for i in range(up.size):
        total, error = _two_sum(up[i], -down[i])
        rest, lost = _two_sum(up_rest[i], -down_rest[i])
        more, again = _two_sum(error, rest)
        signs[i] = total + more
        inexact[i] |= np.uint8(lost != 0.0) | np.uint8(again != 0.0)


@jit
def _choose(signs, least, high, high_rest, low, low_rest, step):
    for i in range(step.size):
        wins = signs[i] > least
        step[i] = high[i] + high_rest[i] if wins else 0.0 - (low[i] + low_rest[i])


@jit
def _choose_extreme(signs, least, highest, lowest, step):
    for i in range(step.size):
        step[i] = (highest[i] if signs[i] > least else lowest[i]) + 0.0


@jit
def _share(signs, least, above, below, shares, step):
    for i in range(step.size):
        share = shares[above[i] if signs[i] > least else below[i]]
        step[i] /= share if share != 0.0 else 1.0


# --- a block ---------------------------------------------------------------------------------
# Its state: sums of the terms of both signs and what these leave out, the extreme terms, numbers of
# the signs of all sums, and in bits which models have terms of which sign.


@inline
def _state():
    sums, extremes, signs = np.empty((4, BLOCK)), np.empty((2, BLOCK)), np.empty(BLOCK)
    return sums, extremes, signs, np.empty((2, BLOCK), np.uint32)


@inline
def _begin(state):
    sums, extremes, _, voters = state
    sums[:] = 0.0
    extremes[:] = 0.0
    voters[:] = 0


@inline
def _add_model(kind, taus, weight, t, state, inexact):
    sums, extremes, _, voters = state
    m = taus.size
    _add_sides(taus, weight, sums[0, :m], sums[1, :m], sums[2, :m], sums[3, :m], inexact)
    if kind == MEAN:
        _note(taus, weight, np.uint32(1) << np.uint32(t), voters[0, :m], voters[1, :m])
    elif kind == LARGEST:
        _stretch(taus, weight, extremes[0, :m], extremes[1, :m])


@inline
def _elect(kind, majority, shares, state, step, inexact):
    """Turn both sides of every entry into its step."""
    sums, extremes, signs, voters = state
    m = step.size
    sides = sums[0, :m], sums[1, :m], sums[2, :m], sums[3, :m]
    least = 0.0 if majority < 0 else -5e-324  # every sum of 0 is over that, and none below 0
    _compare(*sides, signs[:m], inexact)
    if kind == LARGEST:
        _choose_extreme(signs[:m], least, extremes[0, :m], extremes[1, :m], step)
    else:
        _choose(signs[:m], least, *sides, step)
        if kind == MEAN:
            _share(signs[:m], least, voters[0, :m], voters[1, :m], shares, step)


# --- kernels ---------------------------------------------------------------------------------


@jit
def _exact_sum(taus, weights, total, inexact):
    rests = np.empty(BLOCK)
    for a in range(0, total.size, BLOCK):
        b = min(total.size, a + BLOCK)
        rest = rests[: b - a]
        total[a:b] = 0.0
        rest[:] = 0.0
        inexact[a:b] = 0
        for t in range(weights.size):
            _add(taus[t, a:b], weights[t], total[a:b], rest, inexact[a:b])
        _add_up(total[a:b], rest)


def exact_sum(terms: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """See `Terms.exact_sum`."""
    if terms.ndim != 2 or terms.dtype != np.float64:
        return numpy_terms.exact_sum(terms, weights)
    factors = np.ones(len(terms)) if weights is None else weights
    total, inexact = np.empty(terms.shape[1]), np.empty(terms.shape[1], np.uint8)
    _exact_sum(np.ascontiguousarray(terms), factors, total, inexact)
    if inexact.any():
        where = np.flatnonzero(inexact)
        total[where] = numpy_terms.exact_sum(terms[:, where], weights)
    return total


@jit
def _elected(taus, weights, kind, majority, shares, steps, inexact):
    state = _state()
    for a in range(0, steps.size, BLOCK):
        b = min(steps.size, a + BLOCK)
        _begin(state)
        inexact[a:b] = 0
        for t in range(weights.size):
            _add_model(kind, taus[t, a:b], weights[t], t, state, inexact[a:b])
        _elect(kind, majority, shares, state, steps[a:b], inexact[a:b])


def elected(taus, weights, kind: int, majority: int, signed: bool) -> np.ndarray:
    """See `Terms.elected`."""
    if kind == MEAN and len(weights) > SUBSETS:
        return numpy_terms.elected(taus, weights, kind, majority, signed)
    shares = shares_of(weights, signed) if kind == MEAN else np.empty(1)
    step, inexact = np.empty(taus.shape[1]), np.empty(taus.shape[1], np.uint8)
    _elected(np.ascontiguousarray(taus), weights, kind, majority, shares, step, inexact)
    if inexact.any():
        where = np.flatnonzero(inexact)
        step[where] = numpy_terms.elected(taus[:, where], weights, kind, majority, signed)
    return step


@jit
def _add_step(base, step, merged):
    for i in range(merged.size):
        merged[i] = base[i] + step[i] if step[i] != 0.0 else base[i]


def add_step(base: np.ndarray, step: np.ndarray) -> np.ndarray:
    """See `Terms.add_step`."""
    merged = np.empty(base.size)
    _add_step(np.ascontiguousarray(base), np.ascontiguousarray(step), merged)
    return merged
