"""Fisher-weighted averaging: each entry of each model counts as much as it matters to that model.

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022, arXiv:2111.09832:
``sum(l_t F_t theta_t) / sum(l_t F_t)`` with the diagonal Fisher information ``F_t`` and weights
``l_t``. Where no model has any, the mean weighted by ``l_t`` alone, the limit of equal ``F_t``.

The authors' program takes no ``F_t`` of the first model below 1e-6 instead. Unless told not to, it
and MergeLM also divide each model's by its length over the whole model (``normalize: length``), so
that no model counts more because its loss is steeper. MergeLM adds 1e-6 to every ``F_t`` before
(``added``). A factor of all ``F_t`` changes nothing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Generator
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    Elementwise,
    Entries,
    Everything,
    Extent,
    Fold,
    Method,
    OneOf,
    Real,
    Statistics,
    Total,
    Values,
)

FISHER_INFORMATION = Statistics(
    kind="fisher",
    what="the diagonal Fisher information",
    make="breadcrumbs.statistics.fisher",
    fits=lambda weight, array: weight == array,
    everywhere=True,
)


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, np.ndarray]:
    """Return 1 over the length of each model's information, 1 where that is 0; (T,)."""

    def scan(entries: Entries) -> list[Total]:
        found = nothing()
        for total, row in zip(found, _information(entries, values), strict=True):
            total.add(row * row)
        return found

    def nothing() -> list[Total]:
        return [Total() for _ in range(extent.models)]

    def join(known: list[Total], found: list[Total]) -> list[Total]:
        return [operator.iadd(*pair) for pair in zip(known, found, strict=True)]

    squares = [float(total) for total in (yield Fold(scan, join, nothing))]
    return np.array([1 / math.sqrt(square) if square else 1.0 for square in squares])


def _information(entries: Entries, values: Values) -> np.ndarray:
    assert entries.statistics is not None
    return entries.statistics + values["added"] if values["added"] else entries.statistics


def _combine(entries: Entries, values: Values) -> np.ndarray:
    weights = entries.weights[:, None]
    shares = weights * _information(entries, values)
    if values["normalize"] == "length":
        shares = shares * entries.known[:, None]
    over = entries.kernels.exact_sum(shares)
    nowhere = over == 0
    # Divided first: products of shares and task vectors may be too small for a float64.
    alike = weights / math.fsum(entries.weights)
    shares = np.where(nowhere, alike, shares / np.where(nowhere, 1, over))
    return entries.kernels.exact_sum(shares * entries.taus)


FISHER = Elementwise(
    combine=_combine,
    parameters={
        "normalize": OneOf(
            "none",
            ("none", "length"),
            "whether each is divided by its length over the model",
        ),
        "added": Real(0.0, "what is added to all before; 1e-6 in MergeLM"),
    },
    statistics=FISHER_INFORMATION,
    prepare=_prepare,
    passes=lambda values: int(values["normalize"] == "length"),
    alone="fisher averages whole weights, not task vectors",
)

METHOD = Method(
    "fisher",
    Everything(),
    FISHER,
    "the mean of the models, each entry weighted by its Fisher information",
    "sum_t weight_t F_t model_t / sum_t weight_t F_t, F_t the diagonal Fisher information",
    "Matena and Raffel, Fisher-Weighted Averaging, NeurIPS 2022, arXiv:2111.09832",
    "Where every F_t is 0, the weighted mean. Measure F on training or validation data, never on"
    " test data. With `normalize: length`, a pass more.",
)
