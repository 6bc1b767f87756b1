"""Products of small matrices, to be added to a tensor.

Factors     scale * left right                              LoRA
Hadamard    scale * (left right) * (left' right'), by entry   LoHa
Kronecker   scale * (left x right), of blocks               LoKr
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from breadcrumbs import kernels

#: Dtypes of which a product of two is exact in float64.
EXACT = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class Factors:
    """left: (m, rank). right: (rank, n). scale: of their product. stack: how many matrices."""

    left: np.ndarray
    right: np.ndarray
    scale: float = 1.0
    stack: int = 1

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Those of its matrices."""
        return (*self.left.shape, self.right.shape[1])

    @property
    def digest(self) -> str:
        return digest(self.left, self.right)

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes

    def change(self, start: int, out: np.ndarray) -> None:
        """Fill the float64 ``out`` with the entries of the scaled product from ``start`` on."""
        matrix = self.left.shape[0] // self.stack * self.right.shape[1]
        for number, begin, run in parts(matrix, start, out.size):
            _product(*self._of(number), begin, out[run])
        out *= self.scale

    def _of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return both factors of one matrix of the stack."""
        m, rank = self.left.shape[0] // self.stack, self.rank
        left = self.left[number * m : (number + 1) * m]
        return left, self.right[number * rank : (number + 1) * rank]


@dataclass(frozen=True)
class Hadamard:
    """The product, entry by entry, of two products of shape (m, n), times a scale."""

    first: Factors
    second: Factors
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.first.left.shape[0], self.first.right.shape[1]

    @property
    def digest(self) -> str:
        return self.first.digest + self.second.digest

    def change(self, start: int, out: np.ndarray) -> None:
        """Fill the float64 ``out`` with the entries of the scaled product from ``start`` on."""
        second = np.empty(out.size)
        self.first.change(start, out)
        self.second.change(start, second)
        out *= second
        out *= self.scale


@dataclass(frozen=True)
class Kronecker:
    """left: (a, c). right: (b, d). Block (i, j) of the product (ab, cd) is ``left[i, j] right``.

    Both in float64. scale: of the product.
    """

    left: np.ndarray
    right: np.ndarray
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        (a, c), (b, d) = self.left.shape, self.right.shape
        return a * b, c * d

    @property
    def digest(self) -> str:
        return f"{digest(self.left, self.right)}{self.left.shape}"

    def change(self, start: int, out: np.ndarray) -> None:
        """Fill the float64 ``out`` with the entries of the scaled product from ``start`` on."""
        n = self.shape[1]
        first, last = start // n, -(-(start + out.size) // n)
        i, k = np.divmod(np.arange(first, last), len(self.right))
        rows = self.left[i][:, :, None] * self.right[k][:, None, :]
        begin = start - first * n
        np.multiply(rows.reshape(-1)[begin : begin + out.size], self.scale, out=out)


#: What an adapter adds to a tensor.
Product = Factors | Hadamard | Kronecker


def parts(matrix: int, start: int, size: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (matrix of a stack, first entry in it, where in the range) of a range of entries.

    matrix: entries of one of the stack.
    """
    done = 0
    while done < size:
        number, begin = divmod(start + done, matrix)
        n = min(size - done, matrix - begin)
        yield number, begin, slice(done, done + n)
        done += n


def _product(left: np.ndarray, right: np.ndarray, start: int, out: np.ndarray) -> None:
    """Fill ``out`` with the entries of a product from ``start`` on."""
    n = right.shape[1]
    first, last = start // n, -(-(start + out.size) // n)
    rows = left[first:last].astype(np.float32)
    tools = kernels.choose()
    tools.product(rows, right.astype(np.float32), start - first * n, out)


def digest(left: np.ndarray, right: np.ndarray) -> str:
    """Return the hash of the bytes of both."""
    hasher = blake3()
    for factor in (left, right):
        hasher.update(np.ascontiguousarray(factor).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def added(base: np.ndarray, factors: Factors, start: int, dtype: np.dtype) -> np.ndarray:
    """Return weights of the base (flat) plus the product from entry ``start`` on, rounded once."""
    out = np.empty(base.size)
    factors.change(start, out)
    out += base.astype(np.float64)
    return out.astype(dtype)
