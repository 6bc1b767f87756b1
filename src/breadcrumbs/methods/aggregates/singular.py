"""Singular triplets and polar factors, by eigenvectors of products of the smaller side.

The eigenvectors of ``A A^T`` are the left singular vectors ``U`` of ``A (m, n)``, m <= n, and
``U^T A`` has the right ones as its rows, times the singular values. This takes a third of the time
of an SVD, but of a singular value that is a c-th of the largest it has c times as large an error.
So only those above `SHARE` of the largest are taken at once. What is left of the matrix in the
space of the other left vectors is a matrix (k, n), often small, without what rounding put into it
of the right vectors that are found: it is decomposed in the same way, and so on. So the result is
as near to the matrix, and the vectors about as orthonormal, as those of an SVD (docs/performance.md
has both, measured). Where singular values fall so fast that this takes long, an SVD is made.

A singular value below ``EPS * max(shape) * largest`` counts as 0, and its vectors, which are then
arbitrary, are never used: so equal, zero and low-rank task vectors have one result on all machines,
where the published programs return what their LAPACK happens to put there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from breadcrumbs.methods import algebra

EPS = float(np.finfo(np.float64).eps)

#: Singular values above this share of the largest are taken from one matrix of products. Of normal
#: numbers (1024, 1024) all but a sixth are, and the second decomposition takes a hundredth of the
#: time of the first. At 1/32 vectors are less orthonormal than those of an SVD, five times.
SHARE = 1 / 8

#: The same where values and left vectors are all that is wanted.
SHARE_OF_VALUES = 1 / 64

#: Where singular values fall so fast that what follows the first eigenvectors would take more than
#: so many times as long as these, an SVD is faster.
MOST = 1.5

#: Matrices of fewer rows or columns have SVDs: those take a millisecond.
FEW = 64

#: ``U (m, k), s (k,), V^T (k, n)``, the largest first.
Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]


def triplets(matrix: np.ndarray, least: float = 0.0) -> Triplets:
    """Return the triplets of all singular values that are not 0 and > least."""
    return leading(matrix, min(matrix.shape), least)


def leading(matrix: np.ndarray, count: int, least: float = 0.0) -> Triplets:
    """Return the first ``count`` triplets, or fewer, of `triplets` with singular values > least."""
    if matrix.shape[0] <= matrix.shape[1]:
        return split(matrix, count, least)[0]
    (u, s, v), _ = split(matrix.T, count, least)
    return v.T, s, u.T


def split(matrix: np.ndarray, count: int, least: float = 0.0) -> tuple[Triplets, np.ndarray]:
    """Return `leading` of a matrix (m, n), m <= n, and what its left vectors leave of the space.

    The latter ``(m, m - k)``: orthonormal columns, orthogonal to the k left vectors.
    """
    found = _by_products(matrix, count) if _may_square(matrix) else None
    u, s, v = _svd(matrix) if found is None else found
    zero = EPS * max(matrix.shape) * s.max(initial=0)
    rank = int(np.count_nonzero(s[:count] > max(least, zero)))
    first = np.ascontiguousarray(u[:, :rank])  # else all of u lives as long
    return (first, s[:rank], v[:rank]), u[:, rank:]


def left(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the left vectors ``(m, k)`` and the singular values of `triplets`, for m <= n.

    In three quarters of the time.
    """
    if not _may_square(matrix):
        return triplets(matrix)[:2]
    found = _by_products(matrix, len(matrix), rows=False)
    if found is None:
        return triplets(matrix)[:2]
    u, s, _ = found
    rank = int(np.count_nonzero(s > EPS * max(matrix.shape) * s.max(initial=0)))
    return u[:, :rank], s[:rank]


def _may_square(matrix: np.ndarray) -> bool:
    """Return whether to use products: they neither overflow nor vanish, and save time."""
    size = max(matrix.max(initial=0), -matrix.min(initial=0))
    return min(matrix.shape) >= FEW and bool(size == 0 or 1e-100 < size < 1e100)


def _svd(matrix: np.ndarray) -> Triplets:
    """Return all triplets; through the transpose: 1024 x 2816 takes 1.3 s, 2816 x 1024 1.0 s."""
    u, s, v = algebra.svd(matrix.T)
    return v.T, s, u.T


def _takes(squares: np.ndarray, count: int, share: float) -> float:
    """Return how long eigenvectors take until ``count`` are found, in those of the first matrix.

    squares: of singular values, falling.
    """
    result, at = 0.0, 0
    while at < count and squares[at] > EPS * squares[0]:  # what is below is not known yet
        result += (1 - at / len(squares)) ** 3
        at = int(np.count_nonzero(squares > share**2 * squares[at]))
    return result


def _by_products(matrix: np.ndarray, count: int, rows: bool = True) -> Triplets | None:
    """Return all left vectors ``(m, m)``, and of ``count`` or fewer the rest of the triplets.

    None where an SVD is faster.

    rows: whether right vectors are wanted too; without them, what rounding left of the first ones
    is not taken from what follows: it adds to a value by its square.
    """
    zero, share, found = EPS * max(matrix.shape), SHARE if rows else SHARE_OF_VALUES, 0
    values, right = np.zeros(count), np.empty((count if rows else 0, matrix.shape[1]))
    space, rest, spaces = np.eye(len(matrix)), matrix, []
    while found < count:
        squares, vectors = algebra.eigh(algebra.product(rest, rest.T))
        squares, vectors = squares[::-1], vectors[:, ::-1]
        if not spaces and _takes(squares, count, share) > 1 + MOST:
            return None
        space = algebra.product(space, vectors) if spaces else vectors
        if squares[0] <= (zero * values[:1].max(initial=0)) ** 2:
            break
        stop = min(count, found + int(np.count_nonzero(squares > share**2 * squares[0])))
        more, mine = stop - found, slice(found, stop)
        values[mine] = np.sqrt(squares[:more])
        if rows:
            algebra.product(vectors[:, :more].T, rest, out=right[mine])
            values[mine] = np.sqrt(np.einsum("ij,ij->i", right[mine], right[mine]))
            right[mine] /= values[mine, None]
        spaces.append(space[:, :more])
        space, found = space[:, more:], stop
        if found < count:
            rest = algebra.product(vectors[:, more:].T, rest)
        if found < count and rows:
            along = algebra.product(rest, right[:found].T)
            rest -= algebra.product(along, right[:found])
    return np.hstack([*spaces, space]), values[:found], right[:found]


def isometry(matrix: np.ndarray, least: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return two matrices whose product is the polar factor.

    That is ``U V^T``, the nearest matrix with orthonormal columns or rows; of a matrix without full
    rank the nearest partial isometry. least: as for `triplets`.
    """
    u, _, v = triplets(matrix, least)
    return u, v


def together(parts: Sequence[Triplets]) -> Triplets:
    """Return triplets side by side."""
    u, s, v = zip(*parts, strict=True)
    return np.hstack(u), np.concatenate(s), np.vstack(v)
