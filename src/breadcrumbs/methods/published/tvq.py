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

from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.methods import Fitted, Integer, Method, Values, scaled_sum

PAPER = "Kim et al., Task Vector Quantization, ICCV 2025, arXiv:2503.06921"

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


def _restore(rows: np.ndarray, ends: tuple[np.ndarray, np.ndarray], bits: int) -> np.ndarray:
    """Put rows (T, n) in place from codes of so many bits between the ends (T, 1); return them."""
    for row, low, high in zip(rows, *ends, strict=True):
        spread = high[0] - low[0]
        if spread < 2.0**-1000:  # a constant: the scale would be infinite
            continue
        scale = (2**bits - 1) / spread
        zero = -np.round(scale * low[0])
        row *= scale
        row += zero
        np.rint(row, out=row)
        np.clip(row, 0, 2**bits - 1, out=row)
        row -= zero
        row /= scale
    return rows


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


def _mean(taus: np.ndarray, kernels: Kernels) -> np.ndarray:
    return kernels.exact_sum(taus)[None] / max(len(taus), 1)


def _split(
    taus: np.ndarray, ends: tuple[np.ndarray, np.ndarray], bits: int, kernels: Kernels
) -> np.ndarray:
    """Return the restored mean (1, n), and leave in ``taus`` what it leaves of them."""
    shared = _restore(_mean(taus, kernels), ends, bits)
    taus -= shared
    return shared


def _fit_residual(begin: Begin, values: Values, kernels: Kernels) -> tuple:
    ends, bits = _range(_mean(taus, kernels) for taus in begin()), values["base_bits"]

    def left() -> Iterator[np.ndarray]:
        for taus in begin():
            _split(taus, ends, bits, kernels)
            yield taus

    return ends, _range(left())


def _change_residual(
    taus: np.ndarray, known: tuple, values: Values, kernels: Kernels
) -> np.ndarray:
    shared = _split(taus, known[0], values["base_bits"], kernels)
    _restore(taus, known[1], values["offset_bits"])
    taus += shared
    return taus


TVQ = Fitted(
    fit=lambda begin, values, kernels: _range(begin()),
    change=lambda taus, known, values, kernels: _restore(taus, known, values["bits"]),
    parameters={"bits": Integer(4, 1, "bits per entry of a task vector", 16)},
    passes=1,
    name="tvq",
)
RTVQ = Fitted(
    fit=_fit_residual,
    change=_change_residual,
    parameters={
        "base_bits": Integer(3, 1, "bits per entry of the mean task vector", 16),
        "offset_bits": Integer(2, 1, "bits per entry of the offsets from it", 16),
    },
    passes=2,
    absent=True,
    name="rtvq",
)

METHODS = (
    Method(
        "tvq",
        TVQ,
        scaled_sum(0.3),
        "quantise each task vector to a few bits per weight, then add them",
        "base + alpha * sum_t weight_t * Q(tau_t), Q: `bits` bits, min to max of the tensor",
        PAPER,
        "alpha as in task_arithmetic. A tensor of equal entries comes back as it is.",
    ),
    Method(
        "rtvq",
        RTVQ,
        scaled_sum(0.3),
        "the same with a shared mean task vector and offsets of a few bits",
        "base + alpha * sum_t weight_t * (B + Q(tau_t - B)), B = Q(mean_t tau_t)",
        PAPER,
        "alpha as in task_arithmetic. A model that lacks a tensor counts with zeros.",
    ),
)
