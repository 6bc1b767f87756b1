"""TSV-Merge: the leading singular triplets of all task vectors, made orthogonal to each other.

Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025,
arXiv:2412.00081.
"""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.methods import Everything, Method, Values, algebra
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate
from breadcrumbs.methods.aggregates.singular import Triplets, isometry, leading
from breadcrumbs.methods.aggregates.turns import Taus


def tsv_m(taus: Taus, values: Values) -> np.ndarray:
    """Return ``U' S V'``: of all task vectors, r triplets each, side by side, and polar factors.

    taus: ``(T, m, n)``. ``r = floor(min(m, n) / T)``, and 1 for more tasks than that (their
    program then keeps nothing). ``U'`` and ``V'`` are the nearest matrices with orthonormal
    columns, or rows if there are more columns; ``S`` is as it is. The paper has no weights: here
    they multiply the task vectors.
    """
    count = max(1, min(taus.shape[1:]) // len(taus))
    u, s, v = side_by_side(taus, count)
    if not s.size:
        return np.zeros(taus.shape[1:])
    a, b = isometry(u)
    del u  # which is as large as a
    c, d = isometry(v)
    del v
    b *= s
    return algebra.product(a, b, c, d)


def side_by_side(taus: Taus, count: int) -> Triplets:
    """Return the first ``count`` triplets, or fewer, of each task vector side by side.

    They are put in their places one after the other, so that no two of each are held.
    """
    (_, m, n), most = taus.shape, len(taus) * count
    u, s, v, k = np.empty((m, most)), np.empty(most), np.empty((most, n)), 0
    for tau in taus:
        found = leading(tau, count)
        del tau  # before the next one is made
        more = slice(k, k + found[1].size)
        u[:, more], s[more], v[more] = found
        k = more.stop
        del found
    return np.ascontiguousarray(u[:, :k]), s[:k], v[:k]


def _memory(shape: tuple[int, ...], models: int) -> float:
    """Return the `Whole.memory`, as measured: all triplets side by side, and a decomposition.

    While that is made there is no step yet, which is as large as a task vector.
    """
    if len(shape) < 2:
        return 2.0 * math.prod(shape)
    m, n = shape[-2:]
    sides = max(min(m, n), models) * (m + n)
    return max(0.0, sides + 5.2 * min(m, n) ** 2 - math.prod(shape))


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
