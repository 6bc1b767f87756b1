"""Raw weights, as Numba kernels."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from breadcrumbs.kernels.bounds import NO_EXTENT, extent_of
from breadcrumbs.kernels.numba.steps import BLOCK, _count_unusual, _extent, _round, jit
from breadcrumbs.kernels.numpy import raw as numpy_raw


@jit
def _whole_extent(raw, out):
    _extent(raw, out)


def extent(raw: np.ndarray) -> tuple[float, float]:
    """See `Raw.extent`."""
    pair = np.array(NO_EXTENT, np.uint32)
    _whole_extent(raw.reshape(-1), pair)
    return extent_of(pair, raw.dtype)


@jit
def _count_nans(merged):
    n = np.uint64(0)
    for i in range(merged.size):
        n += np.uint64(merged[i] != merged[i])
    return np.int64(n)


@jit
def _round_all(merged, single, out):
    """Round to bfloat16; return how many are NaN, which come out as any number."""
    nans = np.int64(0)
    for start in range(0, merged.size, BLOCK):
        stop = min(merged.size, start + BLOCK)
        part = merged[start:stop]
        unusual = _count_unusual(part)
        nans += _count_nans(part)
        _round(part, single[: stop - start], unusual, out[start:stop])
    return nans


def round_to(merged: np.ndarray, dtype: str) -> np.ndarray:
    """See `Raw.round_to`."""
    if dtype != "BF16" or merged.ndim != 1:
        return numpy_raw.round_to(merged, dtype)
    out = np.empty(merged.size, np.uint16)
    if _round_all(np.ascontiguousarray(merged), np.empty(BLOCK, np.float32), out):
        return numpy_raw.round_to(merged, dtype)
    return out.view(ml_dtypes.bfloat16)
