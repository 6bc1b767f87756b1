"""Top-only masking: cut the largest magnitudes of each unit, keep all the rest.

Davari and Belilovsky, arXiv:2312.06795, Fig. 7 (ablation). Cut are the ``floor(outliers n)``
largest of n; the authors' program does it row by row (``granularity: row``)
and leaves 0-dimensional tensors unmasked.
"""

from __future__ import annotations

from breadcrumbs.methods.parameters import Fraction, Values, count
from breadcrumbs.methods.transforms import GRANULARITY, Band


def _ranks(n: int, values: Values) -> tuple[int, int]:
    return 0, n - count(values["outliers"], n)


TOP_MASKING = Band(
    ranks=_ranks,
    parameters={
        "outliers": Fraction("0.01", "fraction of largest entries cut"),
        "granularity": GRANULARITY,
    },
    keep_scalars=lambda values: values.get("granularity") == "row",
)
