"""Tensors that are kept as two thin matrices: base + scale * left right.

A tensor of shape (m, ...) of n entries a row is the matrix (m, n); ``left`` is (m, rank), ``right``
(rank, n). Products of two entries are exact in float64, and are added from the first of the rank
to the last: so the sum has the same bits on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from breadcrumbs import kernels
from breadcrumbs.aggregates.matrices import leading, triplets
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.errors import CheckpointError, MismatchError
from breadcrumbs.tasks.about import BLOCK, TaskTensor
from breadcrumbs.tasks.encodings import Encoding

LEFT, RIGHT = "left/", "right/"
#: Dtypes of which a product of two is exact in float64.
EXACT = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class Factors:
    """left: (m, rank). right: (rank, n). scale: of their product."""

    left: np.ndarray
    right: np.ndarray
    scale: float = 1.0

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def digest(self) -> str:
        return digest(self.left, self.right)

    @property
    def nbytes(self) -> int:
        return self.left.nbytes + self.right.nbytes


@dataclass(frozen=True)
class Stored:
    """The factors of a tensor in a file."""

    tensor: TaskTensor
    left: Tensor
    right: Tensor

    def check(self) -> None:
        """Read all; CheckpointError if the bytes are not those that were written."""
        if digest(self.left.read(), self.right.read()) != self.tensor.digest:
            raise CheckpointError("has other bytes than its hash says")

    def weights(self, block: int, base: np.ndarray) -> np.ndarray:
        """Return the fine-tuned weights of a block."""
        n, rank = self.right.shape[1], self.tensor.rank
        start = block * BLOCK
        stop = start + base.size
        first, last = start // n, -(-stop // n)
        left = np.empty((last - first, rank), DTYPES[self.left.dtype])
        self.left.read_into(first * rank, left.reshape(-1))
        found = Factors(left, self.right.read(), self.tensor.scale)
        dtype = DTYPES[self.tensor.dtype]
        return added(base, found, start - first * n, dtype, self.tensor.size)


def stored(tensor: TaskTensor, tensors: dict[str, Tensor]) -> Stored | None:
    """Return the factors of a tensor among those of a file; None if they are not there, or odd."""
    left, right = tensors.get(LEFT + tensor.name), tensors.get(RIGHT + tensor.name)
    if left is None or right is None or not {left.dtype, right.dtype} <= set(EXACT):
        return None
    m, n = tensor.shape[0], tensor.size // tensor.shape[0]
    if left.shape != (m, tensor.rank) or right.shape != (tensor.rank, n):
        return None
    return Stored(tensor, left, right)


def digest(left: np.ndarray, right: np.ndarray) -> str:
    """Return the hash of the bytes of both."""
    hasher = blake3()
    for factor in (left, right):
        hasher.update(np.ascontiguousarray(factor).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def added(
    base: np.ndarray, factors: Factors, start: int, dtype: np.dtype, entries: int = 0
) -> np.ndarray:
    """Return weights of the base (flat) plus the product's entries from ``start`` on, rounded once.

    start: counted from the first row of ``left``. entries: of the whole tensor, if that is more.
    """
    left, right = (factor.astype(np.float32) for factor in (factors.left, factors.right))
    out = np.empty(base.size)
    tools = kernels.of_kept(kernels.choose(max(entries, base.size) * factors.rank))
    tools.product(left, right, start, out)
    out *= factors.scale
    out += base.astype(np.float64)
    return out.astype(dtype)


def of(base: Tensor, model: Tensor, encoding: Encoding, where: str) -> Factors | None:
    """Return the factors of what a model changed of a matrix; None if it is smaller as it is."""
    assert encoding.rank is not None
    m, n = base.shape
    tau = model.read().astype(np.float64)
    tau -= base.read()
    if not np.isfinite(tau).all():
        raise MismatchError(f"{where}: tensor {base.name!r} is not finite. Repair the model.")
    dtype = DTYPES[model.dtype if model.dtype in EXACT else "F32"]
    most = DTYPES[model.dtype].itemsize * m * n / ((m + n) * dtype.itemsize)
    u, s, v = triplets(tau)
    if not s.size:
        return None
    rank = encoding.rank((m, n), s)
    if rank >= most:
        return None
    return Factors((u[:, :rank] * s[:rank]).astype(dtype), v[:rank].astype(dtype))


def cut(tau: np.ndarray, rank: int) -> Factors:
    """Return the ``rank`` leading triplets of a matrix in float32, or fewer if there are fewer."""
    u, s, v = leading(tau, rank)
    roots = np.sqrt(s)
    return Factors((u * roots).astype(np.float32), (roots[:, None] * v).astype(np.float32))
