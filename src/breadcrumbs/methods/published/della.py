"""MagPrune: keep large entries with a higher probability than small ones, and divide by it.

Deep et al., "DELLA-Merging", 2024, arXiv:2406.11617: in each row along the last axis the
probability rises linearly with the rank of the magnitude, from ``density - epsilon`` to
``density + epsilon``. A row of one entry has ``density``, and density 1 keeps all. mergekit
rescales by one factor for a tensor instead (``rescale: l1``), ranks along axis 1, and fails at rows
of one entry.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import (
    AUTO,
    L1,
    SUM,
    Chances,
    Fraction,
    Method,
    OneOf,
    Values,
    defaults,
    election,
)

PAPER = "Deep et al., DELLA-Merging, 2024, arXiv:2406.11617"

DECLARED = {
    "density": Fraction("0.5", "mean probability that an entry is kept"),
    "epsilon": Fraction("0.15", "how much that probability varies with the rank"),
    "rescale": OneOf(
        "expected",
        ("expected", "none", "l1"),
        "whether kept entries are divided by their probability, left as they are, or multiplied by "
        + L1,
    ),
}


def _chances(n: int, values: Values) -> np.ndarray:
    density, epsilon = float(values["density"]), float(values["epsilon"])
    if n == 1 or density == 1:
        return np.full(n, density)
    return density - epsilon + 2 * epsilon * np.arange(n) / (n - 1)


def _check(given: Values) -> Values:
    values = defaults(DECLARED) | given
    density, epsilon = values["density"], values["epsilon"]
    if density != 1 and not epsilon < density < 1 - epsilon:
        raise RecipeError(
            f"della: density {density} with epsilon {epsilon} is not possible. Probabilities go"
            " from density - epsilon to density + epsilon, and both lie between 0 and 1;"
            " density 1 keeps all."
        )
    return values


MAGPRUNE = Chances(
    chances=_chances,
    parameters=DECLARED,
    check=_check,
    divide=lambda values: values["rescale"] == "expected",
    name="della",
)

METHODS = (
    Method(
        "della_linear",
        MAGPRUNE,
        SUM,
        "drop small entries more often than large ones, rescale the rest, and add them",
        "base + alpha * sum_t weight_t * m_t * tau_t / p_t, m_t Bernoulli(p_t), "
        "p_t = density - epsilon + 2 epsilon (rank - 1) / (c - 1) in a row of c",
        PAPER,
    ),
    Method(
        "della",
        MAGPRUNE,
        election("mean", AUTO),
        "drop small entries more often, rescale, elect a sign, average the entries with that sign",
        "base + alpha * mean over {t: sign(w_t d_t) = s} of w_t d_t, s = sign(sum_t w_t d_t), "
        "d_t = m_t tau_t / p_t as in della_linear",
        PAPER,
        "`merge: sum` adds them, as mergekit does with `normalize: false`.",
    ),
)
