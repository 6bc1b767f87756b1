"""MagMax: of each entry, the task vector that is largest there.

Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning", ECCV 2024,
arXiv:2407.06322, for models that were fine-tuned one after the other, each from the one before. Of
two equal magnitudes of both signs the authors' program takes that of the later model (``ties:
later``); here it is the positive one, so that the order of the models does not matter. The paper
has no weights: here they multiply the task vectors.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Elementwise, Entries, Everything, Factor, Method, OneOf, Values


def _combine(entries: Entries, values: Values) -> np.ndarray:
    found = np.zeros(entries.taus.shape[1])
    for row in entries.terms:
        size, largest = np.abs(row), np.abs(found)
        equal = row > found if values["ties"] == "positive" else True
        np.copyto(found, row, where=(size > largest) | (size == largest) & equal)
    return found


MAGMAX = Elementwise(
    combine=_combine,
    parameters={
        "ties": OneOf(
            "positive",
            ("positive", "later"),
            "which of two equal magnitudes of both signs is taken; later: that of the later model",
        ),
        "alpha": Factor(0.5, "factor of the merged task vector"),
    },
    name="magmax",
)

METHOD = Method(
    "magmax",
    Everything(),
    MAGMAX,
    "take of each entry the task vector that is largest there",
    "base + alpha * w_t tau_t, t = argmax_t |w_t tau_t|",
    "Marczak et al., MagMax, ECCV 2024, arXiv:2407.06322",
    "For fine-tunings one after the other; alpha .5 there. With `ties: later` the order of the"
    " models matters where two magnitudes are equal.",
)
