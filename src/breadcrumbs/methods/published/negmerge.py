"""NegMerge: the mean of the task vectors where all have one sign, to be subtracted.

Kim et al., "NegMerge: Sign-Consensual Weight Merging for Machine Unlearning", ICML 2025,
arXiv:2410.05583: fine-tune the model several times on what it is to forget, with other settings
each time, and subtract what all agree on: ``alpha`` below 0. There it is the one that forgets most
while the model keeps 95 % of what it is to keep. A 0 agrees with nothing. The paper has no weights:
here they multiply the task vectors.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Elementwise, Entries, Everything, Factor, Method, Values


def _combine(entries: Entries, values: Values) -> np.ndarray:
    terms = entries.terms
    if not len(terms):
        return np.zeros(terms.shape[1])
    agree = (terms > 0).all(axis=0) | (terms < 0).all(axis=0)
    return np.where(agree, entries.kernels.exact_sum(terms) / len(terms), 0.0)


SIGNS = Elementwise(
    combine=_combine,
    parameters={"alpha": Factor(1.0, "factor of the merged task vector; below 0 to unlearn")},
    absent=True,
    name="sign_consensus",
)

METHOD = Method(
    "negmerge",
    Everything(),
    SIGNS,
    "the mean of the entries where all task vectors have one sign, to unlearn or to add",
    "base + alpha * [all w_t tau_t > 0 or all < 0] * mean_t w_t tau_t",
    "Kim et al., NegMerge, ICML 2025, arXiv:2410.05583",
    "To unlearn, give several fine-tunings on what is to be forgotten and an alpha below 0, such"
    " as -1, and search it: docs/choosing.md has the recipe.",
)
