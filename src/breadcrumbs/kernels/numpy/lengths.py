"""Lengths of a step and of the task vectors it is made of, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.numpy.raw import widen

#: Numbers that are added at once.
LANES = 16


def lengths(base, models, weights, others, merged, out) -> None:
    """See `Products.lengths`."""
    wide = widen(base).astype(np.float64)
    along, total = np.zeros(base.size), np.zeros(base.size)
    for t, model in enumerate(models):
        tau = widen(model).astype(np.float64) - wide
        out[3 + t] += _product(tau, tau)
        along += weights[t] * tau
        total += others[t] * tau
    step = merged.astype(np.float64) - wide
    out[:3] += _product(step, along), _product(total, total), _product(step, step)


def squares(base, model) -> float:
    """See `Products.squares`."""
    tau = widen(model).astype(np.float64) - widen(base).astype(np.float64)
    return _product(tau, tau)


def _product(a: np.ndarray, b: np.ndarray) -> float:
    """Return an inner product, lane by lane and then halves of lanes."""
    products = np.zeros(-(-a.size // LANES) * LANES)
    products[: a.size] = a * b
    lanes = np.add.reduce(products.reshape(-1, LANES), axis=0)  # which goes row by row
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return float(lanes[0])
