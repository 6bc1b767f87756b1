"""The direction of the weighted sum of directions, at the weighted mean length.

As mergekit documents Multi-SLERP (Goddard, 2025), of task vectors (``base_model`` given there) or
whole weights. There the directions are also projected on the tangent space at that sum, and the
weighted sum of the projections is followed along the sphere; but that sum is 0, by the choice of
the point, so it changes nothing.

Where the directions cancel to within 1e-7 of their weights (mergekit: 1e-8), or all are 0: the
weighted sum (mergekit: for two models; an error for more, so for any tensor that none of three
models changed).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import Everything, Gram, Method, OneOf, Values
from breadcrumbs.methods.aggregates.sphere import lengths, models, task_vectors, units


def _shares(weights: Sequence[float], values: Values) -> np.ndarray:
    total = math.fsum(weights)
    if values["normalize"] == "none":
        total = 1.0
    elif weights and total == 0:
        raise RecipeError(
            "multislerp: the weights add up to 0, so they cannot be normalised."
            " Change a weight, or give `normalize: none`."
        )
    return np.array(weights, np.float64) / (total or 1)


def _coefficients(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    shares = _shares(weights, values)
    whole = values["of"] == "models"
    changed = gram[1:, 1:].any()
    if not changed and (not whole or values["normalize"] == "weights"):
        return np.zeros(len(gram))
    vectors = (models if whole else task_vectors)(len(weights))
    length = lengths(gram, vectors)
    middle = shares @ units(vectors, length)
    size = float(lengths(gram, middle))
    merged = (shares @ length) / size * middle if size else shares @ vectors
    merged[0] -= whole
    return merged


MULTISLERP = Gram(
    coefficients=_coefficients,
    parameters={
        "of": OneOf("task_vectors", ("task_vectors", "models"), "what has directions"),
        "normalize": OneOf(
            "weights", ("weights", "none"), "whether weights are normalised to sum to 1"
        ),
    },
    models=(2, None),
    name="multislerp",
)

METHOD = Method(
    "multislerp",
    Everything(),
    MULTISLERP,
    "the mean direction of the task vectors (or models) at their mean length",
    "base + (sum_t w_t |tau_t|) * d / |d|, d = sum_t w_t tau_t / |tau_t|, "
    "w = weights / sum of weights",
    "Goddard, Multi-SLERP, 2025; as mergekit documents it",
)
