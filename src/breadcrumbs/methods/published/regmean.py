"""RegMean: linear layers whose outputs are nearest to those of all models on their own inputs.

Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023,
arXiv:2212.09849: ``W sum(l_t G_t) = sum(l_t W_t G_t)`` for weights of shape (out, in) and Gram
matrices ``G_t = X_t^T X_t`` of the inputs (in, in), their entries off the diagonal times
``off_diagonal``. Everything else gets the mean, weighted by ``l_t``.

A ridge keeps the system solvable, and pulls towards the mean of the models where no input says
anything: equal models are returned whatever the Gram matrices are. The paper has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import (
    Everything,
    Fraction,
    Given,
    Method,
    Statistics,
    Values,
    Whole,
    algebra,
)

GRAM_MATRICES = Statistics(
    kind="gram",
    what="the Gram matrices of the inputs of linear layers",
    make="breadcrumbs.statistics.gram",
    fits=lambda weight, array: len(weight) == 2 and array in {(size, size) for size in weight},
    everywhere=False,
)


def _combine(
    base: np.ndarray,
    taus: np.ndarray,
    weights: Sequence[float],
    values: Values,
    statistics: Iterator[Given | None],
) -> np.ndarray:
    """Return ``m + sum((tau_t - m) G_t) (sum G_t + ridge)^-1`` with the mean ``m`` of ``tau_t``.

    Which is the solution of the system of the weights, task vectors for weights, since the base
    cancels. The ridge is times the mean of the diagonal of ``sum G_t``. One Gram matrix is held at
    a time.
    """
    if not weights:
        return np.zeros(base.shape)
    shares = np.array(weights) / math.fsum(weights)
    middle = np.tensordot(shares, taus, 1)
    total, right, turned = None, None, False
    for tau, weight, given in zip(taus, weights, statistics, strict=True):
        if given is None:
            continue
        gram, turned = given.array, given.turned
        diagonal = weight * np.diagonal(gram)
        gram *= weight * float(values["off_diagonal"])
        np.fill_diagonal(gram, diagonal)
        tau -= middle
        product = algebra.product(gram.T, tau) if turned else algebra.product(tau, gram)
        total = gram if total is None else np.add(total, gram, out=total)
        right = product if right is None else np.add(right, product, out=right)
    size = 0.0 if total is None else float(np.trace(total)) / len(total)
    if total is None or right is None or size == 0:
        return middle
    total /= size
    right /= size
    total += float(values["ridge"]) * np.eye(len(total))
    try:
        if turned:
            return middle + algebra.solve(total.T, right)
        return middle + algebra.solve(total.T, right.T).T
    except np.linalg.LinAlgError:
        raise RecipeError(
            "regmean: some inputs carry no information, so there is no solution without a"
            " ridge. Give"
            " `ridge: 1e-6`."
        ) from None


REGMEAN = Whole(
    combine=_combine,
    parameters={
        "off_diagonal": Fraction("0.95", "factor of the entries of Gram matrices off the diagonal"),
        "ridge": Fraction("1e-6", "added to the diagonal, as a fraction of its mean"),
    },
    svds="none; one linear system",
    algebra=True,
    statistics=GRAM_MATRICES,
    alone="regmean averages whole weights, not task vectors",
)

METHOD = Method(
    "regmean",
    Everything(),
    REGMEAN,
    "linear layers whose outputs are closest to those of all models",
    "(sum_t weight_t W_t G_t) (sum_t weight_t G_t + ridge)^-1, "
    "G_t = X_t^T X_t of its inputs, off the diagonal times off_diagonal",
    "Jin et al., Dataless Knowledge Fusion (RegMean), ICLR 2023, arXiv:2212.09849",
    "Tensors without a Gram matrix get the weighted mean. The paper has off_diagonal 0.9, and no"
    " ridge. Measure on training or validation data, never on test data.",
)
