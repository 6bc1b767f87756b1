"""Raw weights in NumPy: as numbers, their extent, and back to raw ones, rounded once."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from breadcrumbs.kernels.bounds import extent_of


def widen(raw: np.ndarray) -> np.ndarray:
    """See `Raw.widen`."""
    if raw.dtype == np.uint16:
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw


def extent(raw: np.ndarray) -> tuple[float, float]:
    """See `Raw.extent`."""
    bits = raw if raw.dtype == np.uint16 else raw.view(f"u{raw.itemsize}")
    bits = bits & np.asarray(np.iinfo(bits.dtype).max >> 1, bits.dtype)
    nonzero = bits[bits > 0]
    if not nonzero.size:
        return math.inf, 0.0
    return extent_of(np.array([nonzero.min() - 1, nonzero.max()]), raw.dtype)


def widen_extent(base, models, extent_bits) -> None:
    """Widen ``extent_bits`` to the least and largest magnitude among raw weights, 0 left out."""
    for raw in (base, models):
        bits = (raw if raw.dtype == np.uint16 else raw.view(np.uint32)).astype(np.uint32)
        bits &= np.uint32(0x7FFF if raw.dtype == np.uint16 else 0x7FFFFFFF)
        nonzero = bits[bits > 0]
        extent_bits[0] = min(extent_bits[0], (nonzero - 1).min(initial=0xFFFFFFFF))
        extent_bits[1] = max(extent_bits[1], nonzero.max(initial=0))


def sign_zeros(merged, where, base, models, total) -> None:
    """See `Raw.sign_zeros`."""
    if not where.size:
        return
    sign = np.where(total[where] == 0, np.signbit(widen(base[where])), np.signbit(merged[where]))
    if len(models):
        wide = widen(models[:, where])
        signs = np.signbit(wide)
        same = ((wide == 0) & (signs == signs[0])).all(axis=0)
        sign = np.where(same, signs[0], sign)
    merged[where] = np.where(sign, -0.0, 0.0)


def round_to(merged: np.ndarray, dtype: str) -> np.ndarray:
    """See `Raw.round_to`."""
    if dtype == "F64":
        return merged
    with np.errstate(over="ignore"):
        if dtype == "F16":
            return merged.astype(np.float16)
        single = merged.astype(np.float32)
    if dtype == "F32":
        return single
    # A second rounding gives what one would if the first is to odd (Boldo and Melquiond 2008).
    bits = single.view(np.uint32)
    with np.errstate(invalid="ignore"):
        error = merged - single
    outward = (error > 0) == (bits < 0x80000000)
    even = (error != 0) & (bits & 1 == 0) & np.isfinite(single)
    bits[even & outward] += np.uint32(1)
    bits[even & ~outward] -= np.uint32(1)
    name = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[dtype]
    with np.errstate(over="ignore"):
        return single.astype(getattr(ml_dtypes, name))


def round_raw(merged, out) -> None:
    """Write float64 ``merged`` to raw ``out``, rounded once."""
    out[:] = round_to(merged, "BF16" if out.dtype == np.uint16 else "F32").view(out.dtype)
