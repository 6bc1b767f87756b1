"""Spherical linear interpolation between two models, of their task vectors or whole weights.

As mergekit documents NuSLERP (Goddard, 2024): `slerp` of the two with
``t = weight_2 / (weight_1 + weight_2)``, 1/2 if the weights cancel, and a straight line only where
they are parallel or opposite. One angle for a tensor (there ``nuslerp_flatten: true``), for each
row along the last axis (``false``), or for each column along the first (``false``, and
``nuslerp_row_wise: true``, whatever its name says).

Task vectors that are opposite to within 1e-7 count as opposite (mergekit: 1e-8, which float32
cannot tell apart); the arc between them could go any way round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from breadcrumbs.methods import Everything, Gram, Method, OneOf, Values
from breadcrumbs.methods.aggregates.sphere import arc, models, task_vectors

#: Weights cancel if their sum is this much smaller than they are.
CANCEL = 1e-6


def _coefficients(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    if len(weights) < 2:  # a weight of 0 left the other model out: the end of the arc
        return np.eye(1 + len(weights))[-1] * bool(weights)
    total = math.fsum(weights)
    cancel = abs(total) <= CANCEL * math.fsum(map(abs, weights))
    t = 0.5 if cancel else weights[1] / total
    whole = values["of"] == "models"
    first, second = models(2) if whole else task_vectors(2)
    merged = first + arc(gram, first, second, t, 1.0)
    return merged - [whole, 0, 0]


NUSLERP = Gram(
    coefficients=_coefficients,
    parameters={
        "of": OneOf("task_vectors", ("task_vectors", "models"), "what lies on the arc"),
        "angles": OneOf(
            "tensor",
            ("tensor", "row", "column"),
            "what has an angle of its own: a row is along the last axis, a column along the first",
        ),
    },
    models=(2, 2),
    name="nuslerp",
)

METHOD = Method(
    "nuslerp",
    Everything(),
    NUSLERP,
    "the arc between two task vectors (or two models)",
    "base + sin((1 - t) w) / sin w * tau_1 + sin(t w) / sin w * tau_2, "
    "t = weight_2 / (weight_1 + weight_2), w = angle(tau_1, tau_2)",
    "mergekit, NuSLERP, 2024",
)
