"""Subspace boosting: small singular values are raised to one of the larger.

Skorobogat et al., "Subspace-Boosted Model Merging", 2025, arXiv:2506.16506: of the singular values
from the largest on, the first with which they hold ``boost_share`` of the sum of all is the least
that any has. 0 makes all the largest, 1 changes none. Singular values of 0 stay 0. The authors
boost q, k and v apart where they are one matrix; here it is one.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import algebra
from breadcrumbs.methods.aggregates.singular import triplets
from breadcrumbs.methods.aggregates.turns import Taus
from breadcrumbs.methods.finishes import Finish
from breadcrumbs.methods.parameters import Fraction, Values


def boost(step: np.ndarray, taus: Taus, values: Values) -> np.ndarray:
    """Return the matrix with its small singular values raised."""
    u, s, v = triplets(step)
    if not s.size:
        return step
    held = np.cumsum(s)
    first = int(np.count_nonzero(held < float(values["boost_share"]) * held[-1]))
    return algebra.product(u * np.maximum(s, s[min(first, s.size - 1)]), v)


BOOST = Finish(
    boost,
    "boost",
    "raise small singular values to that with which the largest hold a share of the sum",
    "U diag(max(s, s_k)) V^T, k least with s_1 + ... + s_k >= boost_share sum s",
    "Subspace Boosting, 2025, arXiv:2506.16506",
    {"boost_share": Fraction("0.01", "boost: share of the sum of singular values")},
    algebra=True,
)
