"""What an encoding is, and a kind of them, which has parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from breadcrumbs.methods.parameters import Parameter, Values


@dataclass(frozen=True)
class Encoding:
    """encode: (values, the base's weights there) -> (code, bytes).

    decode: (code, bytes, number, dtype, the base's weights there) -> values; raises CheckpointError
    without the place, and makes nothing larger than ``number`` values need. The base's weights are
    None unless ``needs_base``. lossless: whether what is decoded is what was encoded. rank:
    (shape of a matrix, its singular values) -> how many triplets stand for it; None where matrices
    are coded in blocks like all else. name: with its parameters, as it is called.
    """

    name: str
    encode: Callable[[np.ndarray, np.ndarray | None], tuple[int, bytes]]
    decode: Callable[[int, memoryview, int, np.dtype, np.ndarray | None], np.ndarray]
    lossless: bool
    needs_base: bool = False
    rank: Callable[[tuple[int, int], np.ndarray], int] | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of encoding. make: (its whole name, values) -> the encoding. packs: whether
    `task pack` offers it."""

    summary: str
    make: Callable[[str, Values], Encoding]
    parameters: Mapping[str, Parameter]
    packs: bool = True
