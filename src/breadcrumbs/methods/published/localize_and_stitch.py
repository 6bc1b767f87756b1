"""Stitching: where masks overlap, the mean of the task vectors that own the entry.

He et al., "Localize-and-Stitch", TMLR 2025, arXiv:2408.13656, without data: each task owns its
largest entries, of those that it changed.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Elementwise, Entries, Factor, Method, Values, largest


def _combine(entries: Entries, values: Values) -> np.ndarray:
    owners = np.count_nonzero(entries.kept & (entries.taus != 0), axis=0)
    total = entries.kernels.exact_sum(entries.taus, entries.weights)
    return total / np.maximum(owners, 1)


STITCH = Elementwise(
    combine=_combine,
    parameters={"alpha": Factor(1.0, "factor of the stitched task vector")},
    name="stitch",
)

METHOD = Method(
    "localize_and_stitch",
    largest("0.10", unit="model"),
    STITCH,
    "keep the largest entries of each task vector; average where they overlap",
    "base + alpha * sum_t m_t tau_t / max(1, sum_t m_t), "
    "m_t = [rank |tau_t| > N - floor(density N), tau_t != 0] of the model",
    "He et al., Localize-and-Stitch, TMLR 2025, arXiv:2408.13656",
    "The variant without data. The authors' program keeps one entry fewer.",
)
