"""TSV-Merge: the leading singular triplets of all task vectors, made orthogonal to each other.

Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025,
arXiv:2412.00081.
"""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs import algebra
from breadcrumbs.methods import Everything, Method, Values
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate
from breadcrumbs.methods.aggregates.singular import isometry, leading, together
from breadcrumbs.methods.aggregates.turns import Taus


def tsv_m(taus: Taus, values: Values) -> np.ndarray:
    """Return ``U' S V'``: of all task vectors, r triplets each, side by side, and polar factors.

    taus: ``(T, m, n)``. ``r = floor(min(m, n) / T)``, and 1 for more tasks than that (their
    program then keeps nothing). ``U'`` and ``V'`` are the nearest matrices with orthonormal
    columns, or rows if there are more columns; ``S`` is as it is. The paper has no weights: here
    they multiply the task vectors.
    """
    count = max(1, min(taus.shape[1:]) // len(taus))
    u, s, v = together([leading(tau, count) for tau in taus])
    if not s.size:
        return np.zeros(taus.shape[1:])
    (a, b), (c, d) = isometry(u), isometry(v)
    return algebra.product(a, b * s, c, d)


def _memory(shape: tuple[int, ...], models: int) -> float:
    """Return the `Whole.memory`, as measured: all triplets side by side, and their factors."""
    if len(shape) < 2:
        return 2.0 * math.prod(shape)
    m, n = shape[-2:]
    sides = max(min(m, n), models) * (m + n)
    return math.prod(shape) + 3.2 * sides + 4.5 * min(m, n) ** 2


TSV_M = aggregate(
    "tsv_m",
    tsv_m,
    svds="T + 2",
    directions=True,
    memory=_memory,
    apart=True,
)

METHOD = Method(
    "tsv_m",
    Everything(),
    TSV_M,
    "orthogonalise the leading singular vectors of all task vectors, then combine them",
    "base + alpha * polar([U_1..U_T]) diag(S_1..S_T) polar([V_1..V_T])^T, "
    "max(1, floor(min(m, n) / T)) triplets of each weight_t tau_t",
    "Gargiulo et al., Task Singular Vectors, CVPR 2025, arXiv:2412.00081",
    OF_MATRICES,
)
