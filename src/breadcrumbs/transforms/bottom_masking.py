"""Bottom-only masking: keep the largest magnitudes of each unit, outliers included.

Davari and Belilovsky, arXiv:2312.06795, Fig. 7 (ablation). Kept are the ``floor(density n)``
largest of n; the authors' program does it row by row (``granularity: row``)
and leaves 0-dimensional tensors unmasked.
"""

from __future__ import annotations

from breadcrumbs.parameters import Fraction, Values, count
from breadcrumbs.transforms import GRANULARITY, Band


def _ranks(n: int, values: Values) -> tuple[int, int]:
    return n - count(values["density"], n), n


BOTTOM_MASKING = Band(
    ranks=_ranks,
    parameters={
        "density": Fraction("0.10", "fraction of largest entries kept"),
        "granularity": GRANULARITY,
    },
    keep_scalars=lambda values: values.get("granularity") == "row",
)
