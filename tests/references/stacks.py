"""Experts stacked in one tensor (E, m, n): a spectral method acts on each of the E matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from references.common import wide
from references.spectral import mean_step


def each(
    method: Callable[..., np.ndarray], base: np.ndarray, models: Sequence[np.ndarray], **given
) -> np.ndarray:
    """Return the stack of what ``method`` makes of the first matrices, the second, and so on."""
    return np.stack([method(base[e], [m[e] for m in models], **given) for e in range(len(base))])


def rows(base: np.ndarray, models: Sequence[np.ndarray], *, alpha: float = 1.0) -> np.ndarray:
    """Return what stacked biases (E, n) get, which are not matrices: the mean."""
    return wide(base) + alpha * mean_step(base, models)
