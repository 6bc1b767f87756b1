"""Stitching: where masks overlap, the mean of the task vectors that own the entry.

He et al., "Localize-and-Stitch", TMLR 2025, arXiv:2408.13656, without data: each task owns its
largest entries.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.aggregates import Elementwise, Entries
from breadcrumbs.methods.parameters import Factor, Values


def _combine(entries: Entries, values: Values) -> np.ndarray:
    owners = np.count_nonzero(entries.kept, axis=0)
    total = entries.kernels.exact_sum(entries.taus, entries.weights)
    return total / np.maximum(owners, 1)


STITCH = Elementwise(
    combine=_combine, parameters={"alpha": Factor(1.0, "factor of the stitched task vector")}
)
