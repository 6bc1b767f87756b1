"""The Karcher mean of the models' directions at their mean length, all models counting alike.

Karcher, "Riemannian center of mass and mollifier smoothing", Comm. Pure Appl. Math. 30, 1977,
doi:10.1002/cpa.3160300502, for tensors taken flat as mergekit does: the fixed point of
``m <- exp_m(mean of log_m(u_t))`` over the unit vectors ``u_t``, begun at the unit vector of their
sum (the first of them, if that is below ``tol``), stopped by a step below ``tol`` or after
``max_iter``. A direction opposite to the mean pulls nowhere.

The base lends the layout; it can count as one more model, as mergekit does with a ``base_model``.
A tensor of zeros has no direction, but its length counts (mergekit: so does any tensor shorter than
``tol``, which makes barely filled ones 0; here the mean grows and shrinks with the models).
mergekit takes angles from float32 cosines, which are noise below 5e-4: for models that close, its
error is as large as their task vectors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from breadcrumbs.methods import Everything, Gram, Integer, Method, OneOf, Real, Values
from breadcrumbs.methods.aggregates.sphere import lengths, models, units, unweighted


def _step(gram: np.ndarray, rows: np.ndarray, middle: np.ndarray, tol: float) -> np.ndarray:
    """Return the mean of the logarithms of unit vectors (T, 1 + T) at the unit vector middle."""
    along = rows @ gram @ middle
    across = rows - along[:, None] * middle
    sine = lengths(gram, across)
    pulls = (sine >= tol) & (sine > 0)
    factor = np.where(pulls, np.arctan2(sine, along) / np.where(pulls, sine, 1), 0)
    return factor @ across / len(rows)


def _coefficients(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    unweighted("karcher", weights, "Leave them out: all models count alike.")
    iterations, tol = values["max_iter"], values["tol"]
    if not gram[1:, 1:].any():
        return np.zeros(len(gram))
    base = np.eye(1, len(gram))
    vectors = models(len(weights))
    if values["of"] == "base_and_models":
        vectors = np.concatenate([base, vectors])
    length = lengths(gram, vectors)
    rows = units(vectors, length)[length > 0]
    if not len(rows):
        return -base[0]
    middle = rows.mean(0)
    size = float(lengths(gram, middle))
    middle = rows[0] if size < tol or not size else middle / size
    for _ in range(iterations):
        step = _step(gram, rows, middle, tol)
        size = float(lengths(gram, step))
        if size < tol or not size:
            break
        middle = math.cos(size) * middle + math.sin(size) / size * step
        middle = middle / lengths(gram, middle)
    return length.mean() * middle - base[0]


KARCHER = Gram(
    coefficients=_coefficients,
    parameters={
        "max_iter": Integer(10, 0, "steps at most"),
        "tol": Real(1e-5, "step, in radians, at which to stop"),
        "of": OneOf("models", ("models", "base_and_models"), "what the mean is taken of"),
    },
    models=(1, None),
    alone="karcher averages whole weights, not task vectors",
)

METHOD = Method(
    "karcher",
    Everything(),
    KARCHER,
    "the Karcher mean of the models' directions at their mean length",
    "mean_t |model_t| * m, m <- exp_m(mean_t log_m(model_t / |model_t|)) "
    "until |step| < tol or max_iter",
    "Karcher, Riemannian center of mass and mollifier smoothing, Comm. Pure Appl. Math."
    " 1977; of weights as mergekit documents it",
)
