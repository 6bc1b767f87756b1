"""Keep the largest magnitudes of each unit: magnitude pruning, and the trimming of TIES.

Kept are the ``floor(density n)`` largest of n. Yadav et al., "TIES-Merging", arXiv:2306.01708,
trim over the whole model (their program keeps one entry more). Davari and Belilovsky,
arXiv:2312.06795, Fig. 7, call it bottom-only masking; their program does it row by row
(``granularity: row``) and leaves 0-dimensional tensors unmasked. ``counts: mergekit``: 1 entry at
least, if density is above 0.
"""

from __future__ import annotations

from breadcrumbs.methods.parameters import Fraction, Values, count
from breadcrumbs.methods.transforms import COUNTS, GRANULARITY, RESCALE, Band, floored, own_unit


def _ranks(n: int, values: Values) -> tuple[int, int]:
    density = values["density"]
    if values.get("counts") == "mergekit":
        return n - max(floored(density, n), 1 if density > 0 else 0), n
    return n - count(density, n), n


def largest(density: str, unit: str = "", name: str = "") -> Band:
    """Return the transform with those defaults."""
    return Band(
        ranks=_ranks,
        parameters={
            "density": Fraction(density, "fraction of largest entries kept"),
            "granularity": GRANULARITY,
            "counts": COUNTS,
            "rescale": RESCALE,
        },
        unit=lambda values: unit or own_unit(values),
        keep_scalars=lambda values: values.get("granularity") == "row",
        name=name,
    )
