"""Coordinates of low-rank changes of one matrix: what they are in, and back.

A change is ``left_t right_t``, with ``left_t (m, r_t)`` and ``right_t (r_t, n)`` in float64. A
basis has ``left (m, k)`` with orthonormal columns, and ``right (l, n)`` with orthonormal rows or
None, which stands for the identity, such that each change is ``left M_t right``. So sums, inner
products, lengths and singular values of the ``M_t (k, l)`` are those of the changes, and nothing of
the size of the matrix is formed to find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.methods import algebra
from breadcrumbs.methods.aggregates.singular import EPS

#: Of one change: ``left (m, r)``, times its scale, and ``right (r, n)``, both float64.
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Basis:
    """left: (m, k), orthonormal columns. right: (l, n), orthonormal rows; None is the identity."""

    left: np.ndarray
    right: np.ndarray | None

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + (0 if self.right is None else self.right.nbytes)

    def lifted(self, step: np.ndarray) -> Pair:
        """Return two thin matrices whose product is a step (k, l) in its own size."""
        if self.right is None:
            return self.left, step
        if step.shape[0] <= step.shape[1]:
            return self.left, step @ self.right
        return self.left @ step, self.right


def columns(matrix: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis (m, k) of the columns of a matrix: its left singular vectors.

    Of those whose singular value is not 0, but one at least. The matrix is brought to a square one
    by a QR decomposition first, so that it may be as tall as it likes.
    """
    q, r = algebra.qr(matrix)
    u, s, _ = algebra.svd(r)
    return algebra.product(q, u[:, : counted(s, matrix.shape)])


def counted(values: np.ndarray, shape: tuple[int, ...]) -> int:
    """Return how many singular values of a matrix are not 0 but for rounding, 1 at least."""
    zero = EPS * max(shape) * values.max(initial=0)
    return max(1, int(np.count_nonzero(values > zero)))


def core(pairs: Sequence[Pair]) -> tuple[Basis, list[np.ndarray]]:
    """Return the core space of changes, and each in its coordinates.

    Panariello et al., "Accurate and Efficient Low-Rank Model Merging in Core Space", NeurIPS 2025,
    arXiv:2509.17786: ``left`` are the left singular vectors of all ``left_t`` side by side,
    ``right`` the right ones of all ``right_t`` one below the other, ``M_t = left^T left_t right_t
    right^T``. The scale of an adapter (alpha / r) is in its ``left_t``.
    """
    basis = Basis(
        columns(np.hstack([left for left, _ in pairs])),
        columns(np.hstack([right.T for _, right in pairs])).T,
    )
    assert basis.right is not None
    return basis, [(basis.left.T @ left) @ (right @ basis.right.T) for left, right in pairs]


def knots(pairs: Sequence[Pair]) -> tuple[Basis, list[np.ndarray]]:
    """Return the space that changes have in common on the left, and each in its coordinates.

    Stoica et al., "Model Merging with SVD to Tie the KnOTS", ICLR 2025, arXiv:2410.19735: of all
    changes side by side, ``U S [V_1, ..., V_T]``, ``left`` is U, and what is merged are the
    ``S V_t (k, n)``, as in their program, which multiplies by the singular values first. Singular
    values count as 0 by their share of the largest, where the program cuts below 1e-5.
    """
    q, _ = algebra.qr(np.hstack([left for left, _ in pairs]))
    parts = [(q.T @ left) @ right for left, right in pairs]
    together = np.hstack(parts)
    _, r = algebra.qr(together.T)  # of which the transpose has the same left vectors, and values
    u, s, _ = algebra.svd(r.T)
    u = u[:, : counted(s, together.shape)]
    return Basis(q @ u, None), [u.T @ part for part in parts]


SPACES = {"core": core, "knots": knots}


def of(kind: str, changes: Sequence[Factors | None]) -> tuple[Basis, list[np.ndarray]]:
    """Return the basis of the changes of one matrix, and each in its coordinates; None is 0.

    The same for any order of the changes: they are put side by side in that of their hashes.
    """
    there = [(t, change) for t, change in enumerate(changes) if change is not None]
    there.sort(key=lambda one: (one[1].digest, one[1].scale))
    pairs = [
        (it.left.astype(np.float64) * it.scale, it.right.astype(np.float64)) for _, it in there
    ]
    basis, found = SPACES[kind](pairs)
    result = [np.zeros_like(found[0])] * len(changes)
    for (t, _), step in zip(there, found, strict=True):
        result[t] = step
    return basis, result
