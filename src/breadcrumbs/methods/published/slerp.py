"""Spherical linear interpolation from the base to one model, whole weights.

Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985, doi:10.1145/325334.325242, for
tensors taken flat as mergekit does: ``sin((1 - t) w) / sin w * base + sin(t w) / sin w * model``
with the angle ``w`` between them, lengths left as they are.

Where ``|cos w| > 0.9995`` the line is straight, as in mergekit: most fine-tunings are that close to
their base. A tensor of zeros is at a right angle to any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from breadcrumbs.methods import Everything, Fraction, Gram, Method, Values
from breadcrumbs.methods.aggregates.sphere import arc, unweighted

#: The ``|cos w|`` above which mergekit interpolates along a straight line.
STRAIGHT = 0.9995


def _coefficients(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    unweighted("slerp", weights, "Give t, the position between the base (0) and the model (1).")
    if not weights:
        return np.zeros(1)
    base, model = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    return arc(gram, base, model, float(values["t"]), STRAIGHT)


SLERP = Gram(
    coefficients=_coefficients,
    parameters={"t": Fraction("0.5", "position on the arc: 0 is the base, 1 the model")},
    models=(1, 1),
    base=lambda values: True,
    alone="slerp turns whole weights, not task vectors",
)

METHOD = Method(
    "slerp",
    Everything(),
    SLERP,
    "the arc from the base to one model, whole weights",
    "sin((1 - t) w) / sin w * base + sin(t w) / sin w * model, w = angle(base, model); "
    "(1 - t) base + t model where |cos w| > 0.9995",
    "Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985; of weights as"
    " mergekit documents it",
)
