"""Task vector quantisation: what comes back of a task vector from a few bits an entry.

Kim et al., "Task Vector Quantization for Memory-Efficient Model Merging", ICCV 2025,
arXiv:2503.06921. Asymmetric, from the least to the largest entry of each tensor: scale
``(2^b - 1) / (max - min)``, zero point ``-round(scale min)``, code
``clip(round(scale tau + zero))``, halves to even; what comes back is ``(code - zero) / scale``, and
a constant as it is. *Residual*: the mean task vector has codes of its own, and those of each task
hold what the quantised mean leaves of it, so they make good its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from breadcrumbs.kernels.plain import exact_sum
from breadcrumbs.parameters import Integer, Values
from breadcrumbs.transforms import Fitted

Begin = Callable[[], Iterator[np.ndarray]]


def _range(parts: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest (T, 1) of rows (T, n) that come in parts."""
    low = high = None
    for part in parts:
        least, largest = part.min(axis=1), part.max(axis=1)
        low = least if low is None else np.minimum(low, least)
        high = largest if high is None else np.maximum(high, largest)
    assert low is not None and high is not None
    return low[:, None], high[:, None]


def _restored(rows: np.ndarray, ends: tuple[np.ndarray, np.ndarray], bits: int) -> np.ndarray:
    """Return rows (T, n) from codes of so many bits between the ends (T, 1)."""
    return np.where(_constant(ends), rows, restored(codes(rows, ends, bits), ends, bits))


def codes(rows: np.ndarray, ends: tuple[Any, Any], bits: int) -> np.ndarray:
    """Return the codes of rows, of so many bits between the ends, as float64."""
    scale, zero = _scale(ends, bits)
    return np.clip(np.round(scale * rows + zero), 0, 2**bits - 1)


def restored(codes: np.ndarray, ends: tuple[Any, Any], bits: int) -> np.ndarray:
    """Return what codes mean."""
    scale, zero = _scale(ends, bits)
    return np.where(_constant(ends), ends[0], (codes - zero) / scale)


def _constant(ends: tuple[Any, Any]) -> Any:
    """Return whether the ends are so near each other that the scale would be infinite."""
    return ends[1] - ends[0] < 2.0**-1000


def _scale(ends: tuple[Any, Any], bits: int) -> tuple[Any, Any]:
    low, high = ends
    scale = (2**bits - 1) / np.where(_constant(ends), 1.0, high - low)
    return scale, -np.round(scale * low)


def _mean(taus: np.ndarray) -> np.ndarray:
    return exact_sum(taus)[None] / max(len(taus), 1)


def _fit_residual(begin: Begin, values: Values) -> tuple:
    ends = _range(_mean(taus) for taus in begin())
    bits = values["base_bits"]
    return ends, _range(taus - _restored(_mean(taus), ends, bits) for taus in begin())


def _change_residual(taus: np.ndarray, known: tuple, values: Values) -> np.ndarray:
    shared = _restored(_mean(taus), known[0], values["base_bits"])
    return shared + _restored(taus - shared, known[1], values["offset_bits"])


TVQ = Fitted(
    fit=lambda begin, values: _range(begin()),
    change=lambda taus, known, values: _restored(taus, known, values["bits"]),
    parameters={"bits": Integer(4, 1, "bits of an entry of a task vector", 16)},
    passes=1,
)
RTVQ = Fitted(
    fit=_fit_residual,
    change=_change_residual,
    parameters={
        "base_bits": Integer(3, 1, "bits of an entry of the mean task vector", 16),
        "offset_bits": Integer(2, 1, "bits of an entry of what it leaves of each", 16),
    },
    passes=2,
    absent=True,
)
