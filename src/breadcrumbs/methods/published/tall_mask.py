"""TALL-masks: the model of one task as its mask rebuilds it from the multi-task vector.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024,
arXiv:2405.07813: base, multi-task vector and one bit of each weight for each task are all that is
kept. `breadcrumbs.archives` writes them and reads them back.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods.aggregates import Elementwise, Entries, tall
from breadcrumbs.methods.parameters import Values, WhichModel


def _combine(entries: Entries, values: Values) -> np.ndarray:
    terms, task = entries.terms, values["task"]
    total, rest = tall.multi_task(entries, terms)
    mine = terms[list(entries.who).index(task)]
    return np.where(tall.mask(mine, total, rest, values["scale"][task]), total, 0.0)


TALL_MASK = Elementwise(
    combine=_combine,
    parameters={
        "task": WhichModel(True, "the model to rebuild"),
        "on": tall.ON,
        "scale": tall.SCALE,
    },
    models=(1, None),
    prepare=tall.prepare,
    passes=tall.passes,
)
