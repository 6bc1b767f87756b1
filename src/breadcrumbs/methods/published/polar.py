"""Polar: the directions of the sum, all alike, in a step as long as the task vectors allow.

A method of this project, found on one family and judged on others: docs/own-method.md has its
derivation, every trial, and where it is behind. Its directions are those of Iso-C (Marczak et al.,
ICML 2025, arXiv:2502.04959): with ``S = sum tau_t = U diag(s) V^T``, k singular values that are not
0, the step is ``sigma U V^T``. Iso-C takes ``sigma = mean(s)``, so that the step of T task vectors
is about sqrt(T) of them long, too short for two and too long for fifty. Here

    sigma = min(length * mean_t |tau_t| / sqrt(k), sum_t |tau_t|^2 / sum s, |S|^2 / sum s)

The first makes the step ``length`` mean task vectors long, whatever the number of tasks. The others
are where ``<M, S> = sum_t |tau_t|^2`` and ``<M, S> = |S|^2``: the step goes no further along the
task vectors than these do themselves, nor than their sum does. They decide for one model, for
models that are alike, and for models that cancel each other.

All it needs are the sum and the norms of the task vectors, and one decomposition for a matrix.
"""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import Everything, Method, Real, Values, algebra
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate, of_svd
from breadcrumbs.methods.aggregates.singular import triplets
from breadcrumbs.methods.aggregates.turns import Taus, Turns, added


def polar(taus: Taus, values: Values) -> np.ndarray:
    """Return ``sigma U V^T`` of the task vectors ``(T, m, n)``, those of zeros apart.

    They are scaled by their largest entry first, so that squares are numbers.
    """
    largest = max(max(tau.max(initial=0.0), -tau.min(initial=0.0)) for tau in taus)
    if not largest:
        return np.zeros(taus.shape[1:])
    total, squares = None, []
    for tau in taus:
        tau /= largest
        squares.append(_square(tau, len(taus)))
        if isinstance(taus, Turns):
            total = tau if total is None else np.add(total, tau, out=total)
        del tau  # before the next one is made
    norms = np.sqrt(np.array(squares))
    norms = norms[norms > 0]
    u, s, v = triplets(added(taus) if total is None else total)
    if not s.size:
        return np.zeros(taus.shape[1:])
    furthest = min(np.square(norms).sum(), np.square(s).sum()) / s.sum()
    sigma = min(values["length"] * norms.mean() / math.sqrt(s.size), furthest)
    return algebra.product(largest * sigma * u, v)


def _square(tau: np.ndarray, number: int) -> float:
    """Return the square of a norm, added up as NumPy does for each of a number of matrices."""
    same = np.broadcast_to(tau, (min(2, number), *tau.shape))
    return np.einsum("tmn,tmn->t", same, same)[0]


def _check(given: Values) -> Values:
    if given.get("length", 0) < 0:
        raise RecipeError(
            f"polar: length {given['length']:g} is below 0, and would go against the task vectors."
            " Give 0 or more."
        )
    return given


POLAR = aggregate(
    "polar",
    polar,
    {
        "length": Real(2.0, "of the step at most, in mean task vectors, matrix by matrix"),
    },
    check=_check,
    svds="1",
    directions=True,
    memory=of_svd(4, 5.5),
    apart=True,  # as long as this step was measured to be right for two tasks and more
)

METHOD = Method(
    "polar",
    Everything(),
    POLAR,
    "the directions of the sum, all alike, in a step whose length the task vectors set",
    "base + alpha * sigma U V^T, U diag(s_1..s_k) V^T = sum_t weight_t tau_t, sigma = "
    "min(length mean_t |weight_t tau_t| / sqrt(k), min(sum_t |weight_t tau_t|^2, sum s^2) / sum s)",
    "This project, 2026 (docs/own-method.md); the directions are Iso-C's, arXiv:2502.04959",
    OF_MATRICES + " A task vector of zeros in a matrix does not count there.",
)
