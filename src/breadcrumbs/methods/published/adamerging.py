"""What AdaMerging++ adds up: the entries of task vectors that TIES leaves, each task's its own.

Yang et al., "AdaMerging: Adaptive Model Merging for Multi-Task Learning", ICLR 2024,
arXiv:2310.02575, Sec. 3.2.2: AdaMerging with task vectors of which TIES has trimmed the smallest
entries and those against the elected sign. The weights, which `breadcrumbs learn` finds, have no
part in the election, so that the step is linear in them; a model of weight 0 is not there at all.
A sum of 0 elects positive; the authors' program elects what most entries of the model do.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Elementwise, Entries, Factor, Method, Values, largest


def _parts(entries: Entries, values: Values) -> np.ndarray:
    taus = entries.taus
    sign = np.where(entries.kernels.exact_sum(taus) < 0, -1.0, 1.0)
    return np.where(taus * sign > 0, taus, 0.0)


def _combine(entries: Entries, values: Values) -> np.ndarray:
    return entries.kernels.exact_sum(_parts(entries, values), entries.weights)


SURVIVORS = Elementwise(
    combine=_combine,
    parameters={"alpha": Factor(0.3, "factor of the merged task vector")},
    parts=_parts,
    name="survivors",
)

METHOD = Method(
    "survivors",
    largest("0.20", unit="model"),
    SURVIVORS,
    "trim each task vector, elect a sign per entry, add up the entries that have it",
    "base + alpha * sum over {t: sign(m_t tau_t) = s} of w_t m_t tau_t, s = sign(sum_t m_t tau_t), "
    "m_t = [rank |tau_t| > N - floor(density N)], N of all",
    "Yang et al., AdaMerging, ICLR 2024, arXiv:2310.02575",
    "AdaMerging++ with learned weights (`breadcrumbs learn`). Weights multiply after the election,"
    " where `ties` multiplies before it. alpha .3 is where the learning begins.",
)
