"""The geometric median: the point whose distances to all models have the least sum, by tensor.

Weiszfeld, "Sur le point pour lequel la somme des distances de n points donnes est minimum", Tohoku
Math. J. 43, 1937; begun at the mean, with the step of Vardi and Zhang, PNAS 97, 2000, where it
meets a model: that is the median if the pull of all others is no more than its weight. Weights are
those of the distances. One model far from all others pulls no more than one near them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import Everything, Gram, Integer, Method, Real, Values
from breadcrumbs.methods.aggregates.sphere import lengths, task_vectors


def _coefficients(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    shares = np.array(weights, np.float64)
    if (shares < 0).any():
        raise RecipeError("geometric_median: a weight is below 0. Give none, or positive ones.")
    rows = task_vectors(len(shares))
    middle = shares @ rows / math.fsum(shares)
    reach = math.sqrt(float(gram[1:, 1:].diagonal().max(initial=0)))
    for _ in range(values["steps"]):
        away = rows - middle
        far = lengths(gram, away)
        meets = far <= values["tol"] * reach
        pulls = np.where(meets, 0, shares / np.where(meets, 1, far))
        if not pulls.any():
            break
        step = pulls @ away / math.fsum(pulls)
        if meets.any():
            pull = float(lengths(gram, pulls @ away))
            step = step * max(0.0, 1 - math.fsum(shares[meets]) / pull if pull else 0.0)
        middle = middle + step
        if float(lengths(gram, step)) <= values["tol"] * reach:
            break
    return middle


GEOMETRIC_MEDIAN = Gram(
    coefficients=_coefficients,
    parameters={
        "steps": Integer(100, 0, "steps at most"),
        "tol": Real(1e-6, "step at which to stop, in lengths of the longest task vector"),
    },
    models=(1, None),
    lines=lambda values: "tensor",
    name="geometric_median",
)

METHOD = Method(
    "geometric_median",
    Everything(),
    GEOMETRIC_MEDIAN,
    "the point whose distances to all models have the least sum, tensor by tensor",
    "base + argmin_x sum_t weight_t |x - tau_t|",
    "Weiszfeld, Tohoku Math. J. 43, 1937; of weights in entries to the NeurIPS 2024 competition"
    " on merging",
)
