"""Entries changed in place by exclusive or, of which a second time undoes the first."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.native.library import at, flat, function, integer
from breadcrumbs.kernels.numpy import flips as numpy_flips


def flip_masked(weights: np.ndarray, flips: np.ndarray, packed: np.ndarray) -> None:
    """See `numpy.flips.flip_masked`."""
    short = flips.size < weights.size or 8 * packed.size < weights.size
    if short or not weights.flags.carray:
        return numpy_flips.flip_masked(weights, flips, packed)
    flips, packed = flat(flips, weights.dtype), flat(packed, np.uint8)
    function("flip_masked", weights.itemsize)(
        integer(weights.size), at(weights), at(flips), at(packed)
    )


def flip_at(weights: np.ndarray, places: np.ndarray, flips: np.ndarray) -> None:
    """See `numpy.flips.flip_at`."""
    odd = places.dtype != np.uint32 or places.size != flips.size
    if odd or not weights.flags.carray:
        return numpy_flips.flip_at(weights, places, flips)
    places, flips = flat(places), flat(flips, weights.dtype)
    beyond = function("flip_at", weights.itemsize, integer)(
        integer(weights.size), at(weights), integer(places.size), at(places), at(flips)
    )
    if beyond:
        raise IndexError(f"{beyond} places are not below {weights.size}")
