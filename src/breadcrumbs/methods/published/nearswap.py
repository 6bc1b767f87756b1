"""NearSwap: move the base towards one model, each entry by at most ``t``.

Alchemonaut, QuartetAnemoi (2024), as mergekit documents it: the weight of the model is
``min(1, t / |difference|)``, which clips the difference.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Elementwise, Entries, Everything, Method, Real, Values


def _combine(entries: Entries, values: Values) -> np.ndarray:
    limit = abs(values["t"])
    return np.clip(entries.terms.sum(axis=0), -limit, limit)


NEARSWAP = Elementwise(
    combine=_combine,
    parameters={"t": Real(0.0001, "most that an entry moves")},
    models=(1, 1),
    alone="nearswap clips the task vector itself",
)

METHOD = Method(
    "nearswap",
    Everything(),
    NEARSWAP,
    "move the base towards one model, each entry by at most t",
    "base + clip(weight * tau, -t, t)",
    "Alchemonaut, QuartetAnemoi, 2024; as mergekit documents it",
)
