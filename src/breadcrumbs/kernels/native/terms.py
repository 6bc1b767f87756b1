"""Exact sums and elections of float64 terms.

Sums are kept as pairs of numbers. Where a pair does not hold one exactly, which takes terms of very
different magnitudes, the entry is done once more by NumPy's.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import MEAN, SUBSETS
from breadcrumbs.kernels.exact import shares as shares_of
from breadcrumbs.kernels.native.library import at, flat, function, integer, rows
from breadcrumbs.kernels.numpy import terms as numpy_terms


def exact_pair(terms, weights=None) -> tuple[np.ndarray, np.ndarray]:
    """See `Terms.exact_pair`."""
    if terms.ndim != 2 or terms.dtype != np.float64:
        return numpy_terms.exact_pair(terms, weights)
    return _pair(terms, weights)


def exact_sum(terms, weights=None) -> np.ndarray:
    """See `Terms.exact_sum`."""
    if terms.ndim != 2 or terms.dtype != np.float64:
        return numpy_terms.exact_sum(terms, weights)
    return _pair(terms, weights)[0]


def _pair(terms, weights) -> tuple[np.ndarray, np.ndarray]:
    terms, stride = rows(terms)
    number, n = terms.shape
    total, rest, inexact = np.empty(n), np.empty(n), np.empty(n, np.uint8)
    factors = np.empty(0) if weights is None else flat(weights, np.float64)
    wrong = function("exact_pair", 4, integer)(
        integer(n),
        integer(number),
        at(terms),
        stride,
        None if weights is None else at(factors),
        at(total),
        at(rest),
        at(inexact),
    )
    if wrong:
        where = np.flatnonzero(inexact)
        again = terms[:, where] if weights is None else factors[:, None] * terms[:, where]
        total[where], rest[where] = numpy_terms.exact_pair(again)
    return total, rest


def elected(taus, weights, kind: int, majority: int, signed: bool) -> np.ndarray:
    """See `Terms.elected`."""
    if (kind == MEAN and len(weights) > SUBSETS) or taus.dtype != np.float64:
        return numpy_terms.elected(taus, weights, kind, majority, signed)
    shares = shares_of(weights, signed) if kind == MEAN else np.empty(1)
    (taus, stride), factors = rows(taus), flat(weights, np.float64)
    step, inexact = np.empty(taus.shape[1]), np.empty(taus.shape[1], np.uint8)
    wrong = function("elected", 4, integer)(
        integer(step.size),
        integer(len(factors)),
        at(taus),
        stride,
        at(factors),
        integer(kind),
        integer(majority),
        at(shares),
        at(step),
        at(inexact),
    )
    if wrong:
        where = np.flatnonzero(inexact)
        step[where] = numpy_terms.elected(taus[:, where], weights, kind, majority, signed)
    return step


def add_step(base, step) -> np.ndarray:
    """See `Terms.add_step`."""
    base, step, merged = flat(base, np.float64), flat(step, np.float64), np.empty(base.size)
    function("add_step", 4)(integer(base.size), at(base), at(step), at(merged))
    return merged
