"""Exact sums and elections of float64 terms in NumPy, whatever made the terms."""

from __future__ import annotations

import math

import numpy as np


def two_sum(a, b, total):
    """Return the rounding error of ``total = a + b``, exactly (Knuth)."""
    back = total - a
    return (a - (total - back)) + (b - back)


def exact_pair(terms) -> tuple[np.ndarray, np.ndarray]:
    """Return (total, rest) of the sums over the first axis of float64 terms (T, n).

    total is the correctly rounded sum and rest what it leaves out, so neither depends on the order.
    """
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
    """Return the correctly rounded sums over the first axis of float64 terms (T, n).

    weights: (T,), by which the terms are multiplied first.
    """
    return exact_pair(terms if weights is None else weights[:, None] * terms)[0]


def elected(taus, weights, kind: int, majority: int, signed: bool) -> np.ndarray:
    """Return the steps of an election as `elect_band` has it, of float64 task vectors (T, n).

    weights: (T,), by which they are multiplied first. signed: whether a mean divides by the sum of
    the weights, 1 if that is 0, and not of their magnitudes.
    """
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
    """Return ``base + step``, both float64 (n,); without a step a zero keeps the base's sign."""
    return np.where(step == 0, base, base + step)


def shares(weights, signed: bool) -> np.ndarray:
    """Return, of each set of models as the bits of a number, what their mean divides by."""
    mine = weights if signed else np.abs(weights)
    sets = range(1 << len(mine))
    return np.array(
        [math.fsum(w for t, w in enumerate(mine.tolist()) if bits >> t & 1) for bits in sets]
    )


#: The kinds of an election: what the step of an entry is of the task vectors of its elected sign.
MEAN, SUM, LARGEST = 0, 1, 2
