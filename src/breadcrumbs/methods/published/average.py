"""The weighted mean of models: ``sum(weight_t * model_t) / sum(weight_t)``.

Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482 (uniform soup). The base only lends the
layout: ``base + mean of (model_t - base)`` is the mean of the models; with ``base_weight`` it is
one of them. ``normalize: none`` takes the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import Everything, Linear, Method, OneOf, Real, Values


def _factor(values: Values, weights: Sequence[float]) -> float:
    total = _total(values, weights)
    if values["normalize"] == "none" or not weights:
        return 1.0
    if total == 0:
        raise RecipeError("average: the weights add up to 0, so there is no mean. Change a weight.")
    return 1 / total


def _more(values: Values, weights: Sequence[float]) -> float:
    return _total(values, weights) - 1 if values["normalize"] == "none" else 0.0


def _total(values: Values, weights: Sequence[float]) -> float:
    return math.fsum([values["base_weight"], *weights])


def _caution(values: Values, models: int) -> str:
    """Say that the base is no part of the mean, where somebody may think so."""
    if models != 1 or values["base_weight"]:
        return ""
    return (
        "average of one model is that model: the base does not count in it. Give -p base_weight=1"
        " for the mean of both, or more models"
    )


MEAN = Linear(
    factor=_factor,
    more=_more,
    parameters={
        "base_weight": Real(0.0, "weight of the base, to count it as a model"),
        "normalize": OneOf(
            "weights", ("weights", "none"), "whether weights are normalised to sum to 1"
        ),
    },
    name="mean",
)

METHOD = Method(
    "average",
    Everything(),
    MEAN,
    "the (weighted) mean of the models",
    "sum_t weight_t * model_t / sum_t weight_t",
    "Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482",
    "The base is not part of the mean; it gives only layout, names and what is not merged."
    " Weights are normalised.",
    caution=_caution,
)
