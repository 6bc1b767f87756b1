"""Sign election and disjoint merge: TIES without its trimming.

Yadav et al., "TIES-Merging", NeurIPS 2023, arXiv:2306.01708, Alg. 1. The elected sign of an entry
is that of the weighted sum; of the entries that have it the mean, the sum or the largest is taken.
A sum of 0 elects what most entries of the model elect, negative if there is no majority (the
authors' program); where units smaller than the model are ranked, it elects positive (mergekit).
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.aggregates import Elementwise, Entries
from breadcrumbs.kernels.plain import exact_sum
from breadcrumbs.parameters import OneOf, Real, Values


def _signs(terms: np.ndarray) -> np.ndarray:
    return np.sign(exact_sum(terms))


def _vote(entries: Entries) -> int:
    return int(_signs(entries.terms).sum())


def _combine(entries: Entries, values: Values) -> np.ndarray:
    terms = entries.terms
    signs = _signs(terms)
    signs[signs == 0] = entries.majority
    agree = terms * signs > 0
    terms = np.where(agree, terms, 0.0)
    if values["merge"] == "max":
        return signs * np.abs(terms).max(axis=0, initial=0.0)
    step = exact_sum(terms)
    if values["merge"] == "mean":
        weights = entries.weights if values["shares"] == "signed" else np.abs(entries.weights)
        shares = exact_sum(np.where(agree, weights[:, None], 0.0))
        step /= np.where(shares == 0, 1.0, shares)
    return step


MERGES = ("mean", "sum", "max")


def election(merge: str, alpha: float) -> Elementwise:
    """Return the aggregate with those defaults."""
    return Elementwise(
        combine=_combine,
        parameters={
            "merge": OneOf(merge, MERGES, "what is made of the entries of the elected sign"),
            "shares": OneOf(
                "magnitudes",
                ("magnitudes", "signed"),
                "what the mean divides by: the sum of |weight|, or of weight (1 if that is 0)",
            ),
            "alpha": Real(alpha, "factor of the merged task vector"),
        },
        vote=_vote,
        kind=lambda values: MERGES.index(values["merge"]),
    )
