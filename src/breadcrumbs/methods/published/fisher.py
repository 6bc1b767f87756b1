"""Fisher-weighted averaging: each entry of each model counts as much as it matters to that model.

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022, arXiv:2111.09832:
``sum(l_t F_t theta_t) / sum(l_t F_t)`` with the diagonal Fisher information ``F_t`` and weights
``l_t``. Where no model has any, the mean weighted by ``l_t`` alone, the limit of equal ``F_t``.

The authors' program takes no ``F_t`` of the first model below 1e-6 instead. Unless told not to, it
also divides each model's by its length over the whole model, which a weight of 1 / length does here
(`breadcrumbs.statistics.fisher` notes it as ``norm``). A factor of all ``F_t`` changes nothing.
"""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.methods import Elementwise, Entries, Everything, Method, Statistics, Values

FISHER_INFORMATION = Statistics(
    kind="fisher",
    what="the diagonal Fisher information",
    make="breadcrumbs.statistics.fisher",
    fits=lambda weight, array: weight == array,
    everywhere=True,
)


def _combine(entries: Entries, values: Values) -> np.ndarray:
    assert entries.statistics is not None
    weights = entries.weights[:, None]
    shares = weights * entries.statistics
    over = entries.kernels.exact_sum(shares)
    nowhere = over == 0
    # Divided first: products of shares and task vectors may be too small for a float64.
    alike = weights / math.fsum(entries.weights)
    shares = np.where(nowhere, alike, shares / np.where(nowhere, 1, over))
    return entries.kernels.exact_sum(shares * entries.taus)


FISHER = Elementwise(
    combine=_combine,
    statistics=FISHER_INFORMATION,
    alone="fisher averages whole weights, not task vectors",
)

METHOD = Method(
    "fisher",
    Everything(),
    FISHER,
    "the mean of the models, each entry weighted by its Fisher information",
    "sum_t weight_t F_t model_t / sum_t weight_t F_t, F_t the diagonal Fisher information",
    "Matena and Raffel, Fisher-Weighted Averaging, NeurIPS 2022, arXiv:2111.09832",
    "Where every F_t is 0, the weighted mean. Measure F on training or validation data, never of"
    " test data.",
)
