"""Matrices as products of two thin ones; all else as the weights themselves.

`tsv`: the leading singular triplets of each matrix of a task vector. Gargiulo et al., "Task
Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025, arXiv:2412.00081 (TSV-C),
who keep ``floor(min(m, n) / T)`` of them for each of T tasks. A task file knows no T: the default
is that of eight. `lora`: the two matrices of an adapter, as they are.

The matrices lie in the file as ``left/NAME`` and ``right/NAME``; see `taskfile.factors`.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods.parameters import Fraction, Integer, Values
from breadcrumbs.taskfile.encodings.exact import EXACT
from breadcrumbs.taskfile.encodings.kind import Encoding, Kind

_SHARE = 8


def _tsv(name: str, values: Values) -> Encoding:
    rank, energy = values.get("rank"), values.get("energy")
    if rank is not None and energy is not None:
        raise RecipeError(f"encoding {name}: give rank or energy, not both.")

    def wanted(shape: tuple[int, int], singular: np.ndarray) -> int:
        if energy is not None:
            held = np.cumsum(singular**2)
            return int(np.count_nonzero(held < float(energy) * held[-1])) + 1
        return min(rank or max(1, min(shape) // _SHARE), singular.size)

    return Encoding(name, EXACT.encode, EXACT.decode, False, True, wanted)


def _lora(name: str, values: Values) -> Encoding:
    return Encoding(name, EXACT.encode, EXACT.decode, True, True)


TSV = Kind(
    "leading singular triplets of each matrix; other tensors bit for bit",
    _tsv,
    {
        "rank": Integer(None, 1, "triplets kept; an eighth of the shorter side unless told"),
        "energy": Fraction(None, "fraction of the sum of squared singular values that is kept"),
    },
)
LORA = Kind("what `task import` writes of an adapter", _lora, {}, packs=False)
