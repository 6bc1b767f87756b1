"""Inner products of weights in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LANES, PART
from breadcrumbs.kernels.numpy.raw import widen


def products(base, models, out) -> None:
    """See `Products.products`."""
    wide = widen(base).astype(np.float64)
    row_products(np.concatenate([wide[None], widen(models).astype(np.float64) - wide]), out)


def row_products(rows, out) -> None:
    """See `Products.row_products`."""
    for part, start in enumerate(range(0, rows.shape[1], PART)):
        mine = rows[:, start : start + PART]
        full = np.zeros((len(rows), -(-mine.shape[1] // LANES) * LANES))
        full[:, : mine.shape[1]] = mine
        lanes = np.zeros((len(rows), len(rows), LANES))
        for step in range(0, full.shape[1], LANES):
            now = full[:, step : step + LANES]
            lanes += now[:, None] * now[None]
        while lanes.shape[2] > 1:
            half = lanes.shape[2] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
        out[part] = lanes[..., 0]
