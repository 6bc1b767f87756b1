"""The weighted mean of models: ``sum(weight_t * model_t) / sum(weight_t)``.

Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482 (uniform soup). The base only lends the
layout: ``base + mean of (model_t - base)`` is the mean of the models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from breadcrumbs.aggregates import Linear
from breadcrumbs.errors import RecipeError
from breadcrumbs.parameters import Values


def _factor(values: Values, weights: Sequence[float]) -> float:
    total = math.fsum(weights)
    if weights and total == 0:
        raise RecipeError("average: the weights add up to 0, so there is no mean. Change a weight.")
    return 1 / total if weights else 1.0


MEAN = Linear(factor=_factor)
