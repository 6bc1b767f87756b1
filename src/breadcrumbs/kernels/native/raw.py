"""Raw weights: their extent, and rounding."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from breadcrumbs.kernels.bounds import NO_EXTENT, extent_of
from breadcrumbs.kernels.native.library import at, flat, function, integer, takes
from breadcrumbs.kernels.numpy import raw as numpy_raw

#: Dtypes that are rounded to here.
NARROW = {"BF16": ml_dtypes.bfloat16, "F32": np.float32}


def extent(raw: np.ndarray) -> tuple[float, float]:
    """See `Raw.extent`."""
    if not takes(raw):
        return numpy_raw.extent(raw)
    raw = flat(raw)
    bits = np.array(NO_EXTENT, np.uint32)
    function("extent", raw.itemsize)(integer(raw.size), at(raw), at(bits))
    return extent_of(bits, raw.dtype)


def round_to(merged: np.ndarray, dtype: str) -> np.ndarray:
    """See `Raw.round_to`."""
    if dtype not in NARROW or merged.dtype != np.float64:
        return numpy_raw.round_to(merged, dtype)
    merged = flat(merged)
    out = np.empty(merged.shape, NARROW[dtype])
    function("round_to", out.itemsize)(integer(merged.size), at(merged), at(out))
    return out
