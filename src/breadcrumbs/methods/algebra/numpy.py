"""The algebra of NumPy, on the processor: what every merge has unless told."""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.algebra.protocol import Algebra, Matrix


class _NumPy:
    name = ""

    def product(self, *factors: Matrix, out: np.ndarray | None = None) -> np.ndarray:
        there = list(factors)
        if len(there) > 2:
            return np.linalg.multi_dot(there, out=out)
        return there[0] @ there[1] if out is None else np.matmul(there[0], there[1], out=out)

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.linalg.eigh(matrix)

    def svd(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.linalg.svd(matrix, full_matrices=False)

    def qr(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.linalg.qr(matrix)

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.linalg.solve(matrix, right)

    def hold(self, matrix: np.ndarray) -> Matrix:
        return matrix


NUMPY: Algebra = _NumPy()
