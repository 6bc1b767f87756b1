"""Tensors that are kept as two thin matrices: base + scale * left right.

A tensor of shape (m, ...) of n entries a row is the matrix (m, n); ``left`` is (m, rank), ``right``
(rank, n). A stack of E matrices, a tensor of shape (E, m, n), has those of each, one below the
other: (E m, rank) and (E rank, n). Products of two entries are exact in float64, and are added from
the first of the rank to the last: so the sum has the same bits on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.products import EXACT, Factors, _product, digest, parts
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.errors import CheckpointError, MismatchError
from breadcrumbs.methods.aggregates.singular import leading, triplets
from breadcrumbs.taskfile.about import TaskTensor
from breadcrumbs.taskfile.encodings import Encoding

LEFT, RIGHT = "left/", "right/"


@dataclass(frozen=True)
class Stored:
    """The factors of a tensor in a file."""

    tensor: TaskTensor
    left: Tensor
    right: Tensor

    def check(self) -> None:
        """Read all; CheckpointError if the bytes are not those that were written."""
        if digest(self.left.read(), self.right.read()) != self.tensor.digest:
            raise CheckpointError("does not match its hash")

    def weights(self, block: int, base: np.ndarray) -> np.ndarray:
        """Return the fine-tuned weights of a block."""
        out = np.empty(base.size)
        self.change(block * BLOCK, out)
        out += base.astype(np.float64)
        return out.astype(DTYPES[self.tensor.dtype])

    def change(self, start: int, out: np.ndarray) -> None:
        """Fill the float64 ``out`` with the entries of the scaled product from ``start`` on."""
        n, rank = self.right.shape[1], self.tensor.rank
        m = self.left.shape[0] // self.tensor.stack
        for number, begin, run in parts(m * n, start, out.size):
            first, last = begin // n, -(-(begin + run.stop - run.start) // n)
            left = np.empty((last - first, rank), DTYPES[self.left.dtype])
            self.left.read_into((number * m + first) * rank, left.reshape(-1))
            right = np.empty((rank, n), DTYPES[self.right.dtype])
            self.right.read_into(number * rank * n, right.reshape(-1))
            _product(left, right, begin - first * n, out[run])
        out *= self.tensor.scale


def stored(tensor: TaskTensor, tensors: dict[str, Tensor]) -> Stored | None:
    """Return the factors of a tensor among those of a file; None if they are not there, or odd."""
    left, right = tensors.get(LEFT + tensor.name), tensors.get(RIGHT + tensor.name)
    if left is None or right is None or not {left.dtype, right.dtype} <= set(EXACT):
        return None
    rows = tensor.shape[0] * (tensor.shape[1] if tensor.stack > 1 else 1)
    if left.shape != (rows, tensor.rank):
        return None
    if right.shape != (tensor.stack * tensor.rank, tensor.size // rows):
        return None
    return Stored(tensor, left, right)


def of(base: Tensor, model: Tensor, encoding: Encoding, where: str) -> Factors | None:
    """Return the factors of what a model changed of a matrix; None if it is smaller as it is."""
    assert encoding.rank is not None
    m, n = base.shape
    tau = model.read().astype(np.float64)
    tau -= base.read()
    if not np.isfinite(tau).all():
        raise MismatchError(f"{where}: tensor {base.name!r} is not finite. Fix the model.")
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
