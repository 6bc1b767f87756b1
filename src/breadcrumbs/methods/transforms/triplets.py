"""Keep the singular triplets of each matrix of a task vector that are named; other tensors stay.

AdaRank (arXiv:2503.22178) learns which ones: `breadcrumbs learn --what weights --as adarank` writes
them into a recipe, as overrides of one tensor and model each. They count from 1, the largest
singular value first; numbers beyond the rank are not there.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.aggregates.singular import triplets
from breadcrumbs.methods.parameters import ALL, Ranges, Values
from breadcrumbs.methods.transforms import Shaped


def named(tau: np.ndarray, values: Values) -> np.ndarray:
    """Return the matrix ``(m, n)`` of the triplets that are kept, or as it is if all are."""
    if values["keep"] == ALL:
        return tau
    u, s, v = triplets(tau)
    places = [place for place in Ranges.numbers(values["keep"]) if place < len(s)]
    return (u[:, places] * s[places]) @ v[places]


TRIPLETS = Shaped(
    named,
    {"keep": Ranges(ALL, "which singular triplets of a matrix are kept, from 1: 1-12,15")},
    name="triplets",
)
