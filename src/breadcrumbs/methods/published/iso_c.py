"""Iso-C: the sum of the task vectors with all its singular values made equal.

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
Subspaces", ICML 2025, arXiv:2502.04959.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.aggregates import Whole
from breadcrumbs.methods.aggregates.matrices import STACK, each, of_matrices, of_svd, triplets
from breadcrumbs.methods.parameters import Real, Values


def iso_c(taus: np.ndarray, values: Values) -> np.ndarray:
    """Return ``mean(s) U V^T`` of the sum of the task vectors.

    taus: ``(T, m, n)``. The mean is over all ``min(m, n)`` singular values, the zeros too; the
    vectors of a zero are left out. The paper has no weights: here they multiply the task vectors.
    """
    total = taus.sum(axis=0)
    u, s, v = triplets(total)
    return (s.sum() / min(total.shape) * u) @ v


ISO_C = Whole(
    combine=of_matrices(iso_c),
    each=each,
    parameters={
        "stack": STACK,
        "alpha": Real(1.0, "factor of the merged task vector"),
    },
    svds="1",
    memory=of_svd(4.5, 5.5),
)
