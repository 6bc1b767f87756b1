"""What the bytes of a tensor may be besides bytes: those of a base, but for some kept entries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.kernels.protocol import Kernels

#: Entries of a block, in which kept entries are held and read.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Kept:
    """What a block keeps. positions: (k,) uint32, offsets in the block, ascending. values: (k,) of
    the tensor's dtype, the fine-tuned weights there."""

    positions: np.ndarray
    values: np.ndarray


class Sparse:
    """A source of bytes that is its base's but for entries that are kept, in blocks of `BLOCK`.

    A class to inherit from, not a protocol: it is asked for of every source, often.
    """

    __slots__ = ()
    base: Tensor

    @property
    def share(self) -> float:
        """What is kept of the squared norm of the task vector; 1 where nothing was cut."""
        raise NotImplementedError

    def number(self, start: int, stop: int) -> int:
        """Return how many entries are kept in the blocks from entry ``start`` to ``stop``."""
        raise NotImplementedError

    def kept(self, block: int, kernels: Kernels | None = None, room: Kept | None = None) -> Kept:
        """Return what a block keeps. room: where to write as many, values of that dtype."""
        raise NotImplementedError
