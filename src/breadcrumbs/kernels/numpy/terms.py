"""Exact sums and elections of float64 terms in NumPy."""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.kernels.constants import LARGEST, MEAN
from breadcrumbs.kernels.exact import two_sum


def exact_pair(terms, weights=None) -> tuple[np.ndarray, np.ndarray]:
    """See `Terms.exact_pair`."""
    terms = terms if weights is None else weights[:, None] * terms
    total, rest = np.zeros(terms.shape[1:]), np.zeros(terms.shape[1:])
    inexact = np.zeros(terms.shape[1:], np.bool_)
    for term in terms:
        before = total
        total = before + term
        error = two_sum(before, term, total)
        before = rest
        rest = before + error
        inexact |= two_sum(before, error, rest) != 0.0
    nearest = total + rest
    rest = two_sum(total, rest, nearest)
    for i in np.flatnonzero(inexact):
        column = terms[:, i].tolist()
        nearest[i] = math.fsum(column)
        rest[i] = math.fsum([*column, -nearest[i]])
    return nearest, rest


def exact_sum(terms, weights=None) -> np.ndarray:
    """See `Terms.exact_sum`."""
    return exact_pair(terms, weights)[0]


def elected(taus, weights, kind: int, majority: int, signed: bool) -> np.ndarray:
    """See `Terms.elected`."""
    terms = weights[:, None] * taus
    signs = np.sign(exact_sum(terms))
    signs[signs == 0] = majority
    agree = terms * signs > 0
    terms = np.where(agree, terms, 0.0)
    if kind == LARGEST:
        return signs * np.abs(terms).max(axis=0, initial=0.0) + 0.0  # no zero is negative
    step = exact_sum(terms)
    if kind == MEAN:
        share = exact_sum(np.where(agree, (weights if signed else np.abs(weights))[:, None], 0.0))
        step /= np.where(share == 0, 1.0, share)
    return step


def add_step(base, step) -> np.ndarray:
    """See `Terms.add_step`."""
    return np.where(step == 0, base, base + step)
