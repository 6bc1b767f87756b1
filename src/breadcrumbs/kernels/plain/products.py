"""Inner products of weights in NumPy, in an order of addition that no processor changes."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.plain.raw import widen

#: Entries whose inner products are added one after the other, and numbers that are added at once.
PART = 1 << 14


LANES = 256


def products(base, models, out) -> None:
    """Write the inner products of the base and the task vectors, in float64, part by part.

    out: (parts of `PART` entries, the last may be shorter, 1 + G, 1 + G). Of each part, lane j adds
    the products of entries j, j + LANES, ... in order; then halves of lanes are added up.
    """
    wide = widen(base).astype(np.float64)
    row_products(np.concatenate([wide[None], widen(models).astype(np.float64) - wide]), out)


def row_products(rows, out) -> None:
    """Write the inner products of float64 rows (R, n) to ``out`` (parts, R, R), as `products`."""
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
