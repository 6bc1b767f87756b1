"""What the aggregates by singular values share: triplets, polar factors, and what is no matrix.

A singular value below ``EPS * max(shape) * largest`` counts as 0, and its vectors, which are then
arbitrary, are never used: so equal, zero and low-rank task vectors have one result on all machines,
where the published programs return what their LAPACK happens to put there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from breadcrumbs.methods.aggregates import Shape
from breadcrumbs.methods.parameters import OneOf, Values

#: Names of tensors that hold the weights of all experts of a layer, along their first dimension:
#: `mlp.experts.gate_up_proj`, `block_sparse_moe.input_linear.weight`, not `experts.0.w1.weight`.
_STACKED = re.compile(r"(?!.*experts?\.\d)(.*\.)?(experts|\w*moe)\.")

#: The parameter that says otherwise, for all tensors or, in overrides, for some.
STACK = OneOf(
    "auto",
    ("auto", "each", "whole"),
    "matrices of a 3-D tensor one by one (each) or not (whole); auto: those of experts",
)

#: What methods of matrices say of all other tensors.
OF_MATRICES = (
    "Holds a matrix of every model. Tensors that are no matrices get the mean; of experts stacked"
    " in one tensor (E, m, n), each matrix is one."
)

EPS = float(np.finfo(np.float64).eps)

#: `leading` uses the products of rows where the last wanted one of their eigenvalues is more than
#: this share of the first: the singular value more than 1/32. Errors are then at most 16 times
#: those of an SVD.
SHARE = 2.0**-10

#: `leading` uses them for up to this share of the triplets. In one thread the SVD of 2816 x 1024
#: takes 1.0 s; products and eigenvectors take 0.3 s, and then an eighth of the triplets 0.1 s, half
#: of them 0.5 s. Of random matrices the results differ by 2e-14 of their norm.
MOST = 0.4

#: ``U (m, k), s (k,), V^T (k, n)``, the largest first.
Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]


def each(name: str, shape: Shape, values: Values) -> Shape:
    """Return the shape of what is treated by itself: the tensor, or one matrix of a stack.

    Of stacked experts (E, m, n) it is each matrix (m, n), whichever side its inputs are on, and of
    their stacked biases (E, n) each row, which is no matrix. Other tensors of three dimensions are
    kernels of convolutions, which stay whole.
    """
    said = values.get("stack", "auto")
    bias = len(shape) == 2 and name.rpartition(".")[2].endswith("bias")
    if said == "whole" or not (len(shape) == 3 or bias):
        return shape
    if said == "each" and not bias:
        return shape[1:]
    return shape[1:] if _STACKED.match(name) else shape


def present(taus: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Return the task vectors times their weights, without those of weight 0: they are absent.

    taus: ``(T, *shape)``, multiplied in place.
    """
    shares = np.asarray(weights, np.float64)
    if not shares.all():
        taus, shares = taus[shares != 0], shares[shares != 0]
    if np.any(shares != 1):
        taus *= shares.reshape(-1, *[1] * (taus.ndim - 1))
    return taus


def of_matrices(
    step: Callable[[np.ndarray, Values], np.ndarray],
) -> Callable[[np.ndarray, np.ndarray, Sequence[float], Values], np.ndarray]:
    """Return the ``combine`` of a step for matrices; any other tensor gets the mean.

    With `each`, which gives it the matrices of a stack one by one.

    step: (task vectors times their weights (T, m, n), T > 0; values) -> (m, n). The mean is of the
    task vectors times their weights. No task vector: 0.
    """

    def combine(
        base: np.ndarray, taus: np.ndarray, weights: Sequence[float], values: Values
    ) -> np.ndarray:
        taus = present(taus, weights)
        if not taus.size:
            return np.zeros(base.shape)
        return step(taus, values) if base.ndim == 2 else taus.sum(axis=0) / len(taus)

    return combine


def of_svd(products: float, square: float) -> Callable[[tuple[int, ...], int], float]:
    """Return the `Whole.memory` of a step by decompositions, as measured.

    products: of a matrix m x n, in units of m n; square: of ``min(m, n)`` squared. Other tensors
    take the sum.
    """

    def memory(shape: tuple[int, ...], models: int) -> float:
        if len(shape) < 2:
            return 2.0 * math.prod(shape)
        return products * math.prod(shape) + square * min(shape[-2:]) ** 2

    return memory


def svd(matrix: np.ndarray) -> Triplets:
    """Return all ``min(m, n)`` triplets.

    Of a wide matrix through its transpose: 1024 x 2816 takes 1.3 s, 2816 x 1024 takes 1.0 s.
    """
    if matrix.shape[0] >= matrix.shape[1]:
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        return u, s, v
    u, s, v = np.linalg.svd(matrix.T, full_matrices=False)
    return v.T, s, u.T


def triplets(matrix: np.ndarray, least: float = 0.0) -> Triplets:
    """Return the triplets of all singular values that are not 0 and > least."""
    u, s, v = svd(matrix)
    rank = int(np.count_nonzero(s > max(least, EPS * max(matrix.shape) * s.max(initial=0))))
    return u[:, :rank], s[:rank], v[:rank]


def leading(matrix: np.ndarray, count: int, least: float = 0.0) -> Triplets:
    """Return the first ``count`` triplets, or fewer, of `triplets` with singular values > least."""
    few = _few(matrix, count) if count <= MOST * min(matrix.shape) else None
    u, s, v = triplets(matrix) if few is None else few
    rank = int(np.count_nonzero(s[:count] > least))
    return u[:, :rank], s[:rank], v[:rank]


def _few(matrix: np.ndarray, count: int) -> Triplets | None:
    """Return ``count`` leading triplets; None where only an SVD is exact enough.

    The eigenvectors of the products of rows (columns, if those are fewer) span the left
    singular vectors; the SVD of the matrix in that space makes triplets of them.
    """
    rows = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    size = np.abs(rows).max()
    if count == 0 or not 1e-100 < size < 1e100:  # squares
        return None
    squares, vectors = np.linalg.eigh(rows @ rows.T)
    if squares[-count] <= SHARE * squares[-1]:
        return None
    space = vectors[:, -count:]
    x, s, v = svd(space.T @ rows)
    u = space @ x
    return (u, s, v) if rows is matrix else (v.T, s, u.T)


def polar(matrix: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return the polar factor ``U V^T``: the nearest matrix with orthonormal columns or rows.

    Of a matrix without full rank: the nearest partial isometry. least: as for `triplets`. Through
    an SVD: from the products of columns it would lose as many digits again as the condition number
    has; Newton's iteration is as exact, but its inverses take longer (0.12 s each of 1024 x 1024,
    eight of them; the SVD 0.54 s).
    """
    u, _, v = triplets(matrix, least)
    return u @ v


def together(parts: Sequence[Triplets]) -> Triplets:
    """Return triplets side by side."""
    u, s, v = zip(*parts, strict=True)
    return np.hstack(u), np.concatenate(s), np.vstack(v)
