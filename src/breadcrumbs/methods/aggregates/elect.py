"""Sign election and disjoint merge: TIES without its trimming.

Yadav et al., "TIES-Merging", NeurIPS 2023, arXiv:2306.01708, Alg. 1. The elected sign of an entry
is that of the weighted sum; of the entries that have it the mean, the sum or the largest is taken.
A sum of 0 elects what most entries of the model elect, negative if there is no majority (the
authors' program); where units smaller than the model are ranked, it elects positive (mergekit).
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.aggregates import Elementwise, Entries
from breadcrumbs.methods.parameters import Factor, OneOf, Values


def _vote(entries: Entries) -> int:
    return int(np.sign(entries.kernels.exact_sum(entries.taus, entries.weights)).sum())


def _combine(entries: Entries, values: Values) -> np.ndarray:
    kind, signed = MERGES.index(values["merge"]), values["shares"] == "signed"
    given = entries.taus, entries.weights, kind, entries.majority, signed
    return entries.kernels.elected(*given)


MERGES = ("mean", "sum", "max")


def election(merge: str, alpha: float | str, name: str = "") -> Elementwise:
    """Return the aggregate with those defaults."""
    return Elementwise(
        combine=_combine,
        parameters={
            "merge": OneOf(merge, MERGES, "how the entries with the elected sign are combined"),
            "shares": OneOf(
                "magnitudes",
                ("magnitudes", "signed"),
                "what the mean divides by: the sum of |weight|, or of weight (1 if that is 0)",
            ),
            "alpha": Factor(alpha, "factor of the merged task vector"),
        },
        vote=_vote,
        kind=lambda values: MERGES.index(values["merge"]),
        name=name,
    )
