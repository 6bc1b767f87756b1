"""Inner products of task vectors in memory, in the blocks in which `comparison` adds them up."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from breadcrumbs.plan import USUAL


def inner(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """Return the inner product of two task vectors of the same tensors, the bits of `compare`.

    Blocks are added in float64, and their sums exactly.
    """
    return math.fsum(
        _inner(tau.reshape(-1), second[name].reshape(-1)) for name, tau in first.items()
    )


def _inner(first: np.ndarray, second: np.ndarray) -> float:
    block = USUAL.block
    blocks = [
        float(np.einsum("n,n->", first[at : at + block], second[at : at + block]))
        for at in range(0, first.size, block)
    ]
    held = (blocks[at : at + USUAL.held] for at in range(0, len(blocks), USUAL.held))
    return math.fsum(math.fsum(group) for group in held)
