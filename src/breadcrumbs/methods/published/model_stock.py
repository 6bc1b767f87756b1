"""Model Stock: as far from the base towards the mean of the models as their angle tells.

Jang, Yun and Han, "Model Stock: All we need is just a few fine-tuned models", ECCV 2024,
arXiv:2403.19522: ``base + t * mean of tau_t``, ``t = T c / (1 + (T - 1) c)``, with the cosine ``c``
between two task vectors. For more than two models, the mean of the COSINES of all pairs, as in
mergekit (the paper has nearly equal angles); ``pairs: angles`` is FusionBench's, of the angles. One
``t`` for a tensor, or for each row along the last axis (``filter_wise: true`` there). A task vector
of zeros has cosine 0 with any.

A negative cosine gives the base. mergekit lets the formula extrapolate there (``ratio: free``),
except that a denominator below 1e-6 gives the base. It also divides by no product of lengths below
1e-6 (``guard: 1e-6``), which takes the cosine of short, barely trained tensors towards 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from breadcrumbs.methods import Everything, Gram, Method, OneOf, Real, Values
from breadcrumbs.methods.aggregates.sphere import unweighted

#: The denominator ``1 + (T - 1) c`` below which nothing is added.
LEAST = 1e-6


def _coefficients(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    unweighted("model_stock", weights, "Leave them out: all models count alike.")
    count = len(weights)
    products = gram[..., 1:, 1:]
    squares = np.einsum("...ii->...i", products)
    sizes = np.sqrt(squares[..., :, None] * squares[..., None, :])
    over = np.maximum(sizes, values["guard"])
    cosines = np.where(sizes > 0, products / np.where(sizes > 0, over, 1), 0)
    first, second = np.triu_indices(count, 1)
    pairs = cosines[..., first, second]
    if values["pairs"] == "angles":
        angle = np.arccos(np.clip(pairs, -1, 1)).sum(axis=-1) / max(first.size, 1)
        cosine = np.cos(angle)
    else:
        cosine = pairs.sum(axis=-1) / max(first.size, 1)
    below = 1 + (count - 1) * cosine
    possible = np.abs(below) >= LEAST
    ratio = np.where(possible, count * cosine / np.where(possible, below, 1), 0)
    if values["ratio"] == "clamped":
        ratio = np.where(cosine > 0, np.minimum(1.0, ratio), 0)
    result = np.zeros((*ratio.shape, 1 + count))
    result[..., 1:] = ratio[..., None] / max(count, 1)
    return result


MODEL_STOCK = Gram(
    coefficients=_coefficients,
    parameters={
        "ratio": OneOf("clamped", ("clamped", "free"), "whether the ratio t is clipped to [0, 1]"),
        "angles": OneOf(
            "tensor", ("tensor", "row"), "what has a ratio of its own: rows lie along the last axis"
        ),
        "pairs": OneOf(
            "cosines", ("cosines", "angles"), "what the mean over all pairs is of, for T > 2"
        ),
        "guard": Real(0.0, "least product of two lengths that a cosine divides by; mergekit: 1e-6"),
    },
    models=(2, None),
    name="model_stock",
)

METHOD = Method(
    "model_stock",
    Everything(),
    MODEL_STOCK,
    "from the base towards the mean of the models, by a ratio from their angles",
    "base + r * mean_t tau_t, r = min(1, T c / (1 + (T - 1) c)) if c > 0 else 0, "
    "c = mean over pairs of cos(tau_s, tau_t)",
    "Jang, Yun and Han, Model Stock, ECCV 2024, arXiv:2403.19522",
)
