"""Iso-C and Iso-CTS: merged directions with one singular value for all.

Iso-C takes the directions of the sum of the task vectors, Iso-CTS common ones and those of each
task.

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
Subspaces", ICML 2025, arXiv:2502.04959.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from breadcrumbs.methods import Everything, Fraction, Method, Values, algebra, count
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate, of_svd
from breadcrumbs.methods.aggregates.singular import (
    EPS,
    isometry,
    leading,
    split,
    together,
    triplets,
)
from breadcrumbs.methods.aggregates.turns import Taus, added

PAPER = "Marczak et al., No Task Left Behind, ICML 2025, arXiv:2502.04959"


def iso_c(taus: Taus, values: Values) -> np.ndarray:
    """Return ``mean(s) U V^T`` of the sum of the task vectors.

    taus: ``(T, m, n)``. The mean is over all ``min(m, n)`` singular values, the zeros too; the
    vectors of a zero are left out. The paper has no weights: here they multiply the task vectors.
    """
    total = added(taus)
    u, s, v = triplets(total)
    return algebra.product(s.sum() / min(total.shape) * u, v)


def ranks(d: int, tasks: int, common: Decimal) -> tuple[int, int]:
    """Return how many triplets are common and how many each task has of its own, of ``d``.

    Each task has ``round((d - floor(common * d)) / T)``, halves to even; what remains is common.
    At least one stays common, else the task vectors have no space to be projected from.
    """
    from fractions import Fraction as Ratio

    own = min(round(Ratio(d - count(common, d), tasks)), (d - 1) // tasks)
    return d - own * tasks, own


def iso_cts(taus: Taus, values: Values) -> np.ndarray:
    """Return ``mean(s) U' V'`` over the common and the tasks' own directions.

    taus: ``(T, m, n)``. The leading triplets of the sum; of each ``tau_t`` less its projection on
    the common left vectors, the leading triplets; side by side, and polar factors of both sides.
    The mean is over the ``min(m, n)`` chosen singular values; one that is missing counts as 0.
    What rounding leaves of a task vector that lies in the common space is no direction of its own:
    singular values up to ``EPS * max(m, n) * sum |tau_t|`` count as 0 there. So much, over the
    smallest one that counts, may directions be off, and what they differ by is none either.
    The paper has no weights: here they multiply the task vectors.
    """
    shape = taus.shape[1:]
    shared, own = ranks(min(shape), len(taus), values["common"])
    total = added(taus)
    least = EPS * max(shape) * sum(float(np.linalg.norm(tau)) for tau in taus)
    parts = []
    if shape[0] <= shape[1]:  # what the common directions leave has a small basis
        main, others = split(total, shared)
        for tau in taus if own else ():
            u, s, v = leading(algebra.product(others.T, tau), own, least)
            parts.append((algebra.product(others, u), s, v))
    else:
        main = leading(total, shared)
        for tau in taus if own else ():
            tau -= _onto(main[0], tau)
            u, s, v = leading(tau, own, least)
            parts.append((u - _onto(main[0], u), s, v))
    u, s, v = together([*parts, main])
    if not s.size:
        return np.zeros(shape)
    off = least / min((part[1].min(initial=np.inf) for part in parts), default=np.inf)
    # The common left vectors are orthonormal, and orthogonal to all others.
    a, b = isometry(u[:, : s.size - main[1].size], off)
    c, d = isometry(v, off)
    left = np.hstack([algebra.product(a, b), main[0]])
    return algebra.product(left, s.sum() / min(shape) * c, d)


def _onto(space: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the part of a matrix (m, n) in the space of orthonormal columns (m, k)."""
    return algebra.product(space, algebra.product(space.T, matrix))


ISO_C = aggregate(
    "iso_c",
    iso_c,
    svds="1",
    directions=True,
    memory=of_svd(4, 5.5),
)
ISO_CTS = aggregate(
    "iso_cts",
    iso_cts,
    {
        "common": Fraction("0.8", "fraction of the directions that all tasks share"),
    },
    svds="T + 3",
    directions=True,
    memory=of_svd(7, 7.2),
)

METHODS = (
    Method(
        "iso_c",
        Everything(),
        ISO_C,
        "the sum of the task vectors, all singular values made equal",
        "base + alpha * mean(s) U V^T, U diag(s) V^T = sum_t weight_t tau_t",
        PAPER,
        OF_MATRICES,
    ),
    Method(
        "iso_cts",
        Everything(),
        ISO_CTS,
        "shared directions and each task's own, all with one singular value",
        "base + alpha * mean(s) polar(U) polar(V)^T; U, s, V: "
        "k = round((d - floor(common d)) / T) leading triplets of each "
        "(I - C C^T) weight_t tau_t, then d - T k of their sum"
        " (left vectors C), d = min(m, n)",
        PAPER,
        OF_MATRICES + " At least one direction stays common.",
    ),
)
