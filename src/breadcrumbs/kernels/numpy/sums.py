"""Sums of what cuts keep of task vectors, in NumPy."""

from __future__ import annotations

from breadcrumbs.kernels.numpy.parts import add_band, finish_all, ones_of, sums_of


def merge_band(
    base, models, unit: int, cuts, weights, alpha: float, extent, out
) -> tuple[float, bool]:
    """See `Sums.merge_band`."""
    sums = sums_of(base.size, weights)
    add_band(base, models, unit, cuts, ones_of(models, weights), *sums)
    return finish_all(base, models, sums, alpha, extent, out)
