"""What is offered to methods of matrices: all in float64, arrays of NumPy in and out."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

#: An array of NumPy (m, n), or what `Algebra.hold` returns of one.
Matrix = Any


class Algebra(Protocol):
    """The operations are as `breadcrumbs.methods.algebra` describes them. Any thread may call them.

    name: what computes, as a report says it; empty for NumPy.
    """

    name: str

    def product(self, *factors: Matrix, out: np.ndarray | None = None) -> np.ndarray: ...

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def svd(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

    def qr(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray: ...

    def hold(self, matrix: np.ndarray) -> Matrix: ...
