"""CART: the mean of the models, and of what each is off it the leading singular triplets.

Choi et al., "Revisiting Weight Averaging for Model Merging", 2024, arXiv:2412.12153: ``mean +
scale * sum of SVD_k(model_t - mean)``, ``k = max(1, floor(rank min(m, n)))``. Tuned there: scale
2 with rank .12 for 8 tasks of ViT-B/32, 1.5 with .16 for 14, 1.9 with .32 for 20. The differences
from the mean add up to 0, so all other tensors are the mean. The paper has no weights: here they
multiply the task vectors.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Everything, Fraction, Method, Real, Values, algebra, count
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate, of_svd
from breadcrumbs.methods.aggregates.singular import leading
from breadcrumbs.methods.aggregates.turns import Taus, added


def cart(taus: Taus, values: Values) -> np.ndarray:
    """Return the mean of the task vectors ``(T, m, n)`` and what is leading of each besides.

    What rounding leaves of equal task vectors is no direction.
    """
    middle = added(taus) / len(taus)
    rank = max(1, count(values["rank"], min(middle.shape)))
    least = 1e-12 * max(float(np.linalg.norm(tau)) for tau in taus)
    total = np.zeros(middle.shape)
    for tau in taus:
        u, s, v = leading(tau - middle, rank, least)
        total += algebra.product(u * s, v)
    total *= values["scale"]
    total += middle
    return total


CART = aggregate(
    "cart",
    cart,
    {
        "rank": Fraction("0.12", "fraction of the triplets kept of what a model is off the mean"),
        "scale": Real(2.0, "factor of what is kept; lambda in the paper"),
    },
    alpha=False,
    svds="T",
    directions=True,
    memory=of_svd(4, 5.5),
)

METHOD = Method(
    "cart",
    Everything(),
    CART,
    "the mean, and of what each model is off it the leading singular triplets, scaled",
    "base + m + scale * sum_t SVD_k(w_t tau_t - m), m = mean_t w_t tau_t,"
    " k = max(1, floor(rank min(m, n)))",
    "Choi et al., Revisiting Weight Averaging, 2024, arXiv:2412.12153",
    OF_MATRICES + " Published for ViT-B/32: rank .12 and scale 2 for 8 tasks, .16 and 1.5 for"
    " 14, .32 and 1.9 for 20, found on validation data.",
)
