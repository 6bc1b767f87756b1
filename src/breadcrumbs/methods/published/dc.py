"""DC-Merge: the tasks' leading directions made orthogonal, and an election in that space.

"DC-Merge: Improving Model Merging with Directional Consistency", CVPR 2026, arXiv:2603.06242, and
the authors' program. Of a matrix m x n and T tasks, ``r = max(1, floor(min(m, n) / T))``:

1. the r leading triplets of each ``tau_t``, their values evened out if asked (``smooth``);
2. ``U``, ``V``: the polar factors of all left and of all right vectors side by side;
3. ``M_t = U^T tau_t V`` of what is left of each, and of its entries the fraction ``top`` of
   largest magnitude, those equal to the smallest of them too;
4. of each entry the sign of the sum, and the mean of the entries that have it; a sum of 0 is 0;
5. of that the T blocks r x r on the diagonal, ``U (.) V^T``.

The program keeps .001 of the entries, 6 for each direction of a task on CLIP ViT-B/32 with 8
tasks. Of smaller matrices that would be less than one, so here it is r entries at least. It is for
full fine-tunings without smoothing; of adapters (``smooth: mean`` or ``linear``) r is their rank
there. The paper has no weights: here they multiply the task vectors.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from breadcrumbs.methods import Everything, Fraction, Method, OneOf, Real, Values, algebra, count
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate, of_svd
from breadcrumbs.methods.aggregates.singular import isometry, leading
from breadcrumbs.methods.aggregates.turns import Taus


def smoothed(s: np.ndarray, values: Values) -> np.ndarray:
    """Return singular values with the same sum: all alike, or falling in a line.

    ``linear``: from ``min(rho, s_1 / s_r)`` times the last to the last.
    """
    if values["smooth"] == "none" or not s.size:
        return s
    if values["smooth"] == "mean":
        return np.full(s.size, s.sum() / s.size)
    line = np.linspace(min(values["rho"], s[0] / s[-1]), 1, s.size)
    return s.sum() * line / line.sum()


def sparse(matrix: np.ndarray, number: int) -> np.ndarray:
    """Return a matrix with its ``number`` largest entries, and all equal to the last of these."""
    sizes = np.abs(matrix)
    at = matrix.size - min(number, matrix.size)
    return np.where(sizes >= np.partition(sizes.reshape(-1), at)[at], matrix, 0.0)


def elected(parts: np.ndarray) -> np.ndarray:
    """Return of entries (T, ...) the mean of those that have the sign of their sum."""
    agree = parts * np.sign(parts.sum(axis=0)) > 0
    number = np.count_nonzero(agree, axis=0)
    return np.where(agree, parts, 0.0).sum(axis=0) / np.maximum(number, 1)


def dc(taus: Taus, values: Values) -> np.ndarray:
    """Return the merged matrix of the task vectors ``(T, m, n)``."""
    rank = max(1, min(taus.shape[1:]) // len(taus))
    parts = [leading(tau, rank) for tau in taus]
    parts = [(u, smoothed(s, values), v) for u, s, v in parts if s.size]
    if not parts:
        return np.zeros(taus.shape[1:])
    (a, b), (c, d) = (
        isometry(np.hstack([u for u, _, _ in parts])),
        isometry(np.vstack([v for _, _, v in parts])),
    )
    left, right = algebra.product(a, b), algebra.product(c, d)
    ends = np.cumsum([0, *(s.size for _, s, _ in parts)])
    blocks = [slice(*pair) for pair in pairwise(ends.tolist())]
    number = max(rank, count(values["top"], int(ends[-1]) ** 2))
    found: list[list[np.ndarray]] = [[] for _ in blocks]
    for u, s, v in parts:
        inside = algebra.product(left.T, u * s), algebra.product(v, right.T)
        mine = sparse(algebra.product(*inside), number)
        for mine_here, block in zip(found, blocks, strict=True):
            mine_here.append(mine[block, block])
    total = np.zeros(taus.shape[1:])
    for block, mine_here in zip(blocks, found, strict=True):
        middle = algebra.product(left[:, block], elected(np.array(mine_here)))
        total += algebra.product(middle, right[block])
    return total


DC = aggregate(
    "dc",
    dc,
    {
        "top": Fraction("0.001", "fraction of largest entries kept of each task in the space"),
        "smooth": OneOf(
            "none",
            ("none", "mean", "linear"),
            "what becomes of singular values: all alike, or falling in a line, as for adapters",
        ),
        "rho": Real(5.0, "smooth: linear: the first value over the last, at most"),
    },
    svds="T + 2",
    directions=True,
    memory=of_svd(8, 12),
    apart=True,
)

METHOD = Method(
    "dc",
    Everything(),
    DC,
    "make the leading directions of all tasks orthogonal, and elect entries in their space",
    "base + alpha * U diag_blocks(elect_t(top(U^T SVD_r(w_t tau_t) V))) V^T,"
    " U = polar([U_1..U_T]), V = polar([V_1..V_T]), r = max(1, floor(min(m, n) / T))",
    "DC-Merge, CVPR 2026, arXiv:2603.06242",
    OF_MATRICES + " alpha is searched on validation data there, .1 to 3; on `breadcrumbs demo`"
    " 2 is best. The authors' program; other programs smooth by default, or sum in the election.",
)
