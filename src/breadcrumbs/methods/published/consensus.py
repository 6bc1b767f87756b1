"""Consensus: keep of the multi-task vector the entries that enough tasks use.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024,
arXiv:2405.07813 (TALL-masks and Consensus Merging). An entry stays where at least k of the masks
of `tall` hold. k = 1 removes what none uses (catastrophic entries), k = 2 also what one alone uses
(selfish ones); the report has the fractions of both among the entries that changed.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.aggregates import Elementwise, Entries, tall
from breadcrumbs.methods.parameters import AUTO, Factor, Integer, Values


def _combine(entries: Entries, values: Values) -> np.ndarray:
    terms = entries.terms
    total, rest = tall.multi_task(entries, terms)
    votes = np.count_nonzero(tall.masks(entries, terms, total, rest, values), axis=0)
    changed = entries.taus.any(axis=0)
    entries.counts["changed"] += int(np.count_nonzero(changed))
    entries.counts["catastrophic"] += int(np.count_nonzero(changed & (votes == 0)))
    entries.counts["selfish"] += int(np.count_nonzero(votes == 1))
    return np.where(votes >= values["k"], total, 0.0)


CONSENSUS = Elementwise(
    combine=_combine,
    parameters={
        "on": tall.ON,
        "scale": tall.SCALE,
        "k": Integer(2, 0, "tasks that must use an entry for it to stay"),
        "alpha": Factor(AUTO, "factor of what stays of the multi-task vector"),
    },
    prepare=tall.prepare,
    passes=tall.passes,
)
