"""Inner products of weights, as Numba kernels."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LANES, PART
from breadcrumbs.kernels.numba.steps import _number, jit

#: Entries of a block.
BLOCK = 8 * LANES


@jit
def _to_double(raw, out):
    for i in range(raw.size):
        out[i] = np.float64(_number(raw[i]))


@jit
def _to_task_vector(raw, base, out):
    for i in range(raw.size):
        out[i] = np.float64(_number(raw[i])) - base[i]


@jit
def _add_products(x, y, lanes):
    for i in range(lanes.size):
        lanes[i] += x[i] * y[i]


@jit
def _add_block_products(x, y, lanes):
    """Add the products of a whole block; one load and store of each lane for all of it."""
    for i in range(LANES):
        sum_ = lanes[i]
        sum_ += x[i] * y[i]
        sum_ += x[LANES + i] * y[LANES + i]
        sum_ += x[2 * LANES + i] * y[2 * LANES + i]
        sum_ += x[3 * LANES + i] * y[3 * LANES + i]
        sum_ += x[4 * LANES + i] * y[4 * LANES + i]
        sum_ += x[5 * LANES + i] * y[5 * LANES + i]
        sum_ += x[6 * LANES + i] * y[6 * LANES + i]
        sum_ += x[7 * LANES + i] * y[7 * LANES + i]
        lanes[i] = sum_


@jit
def _fold(lanes):
    """Return the sum of lanes, halves added up."""
    half = lanes.size // 2
    while half:
        for i in range(half):
            lanes[i] += lanes[i + half]
        half //= 2
    return lanes[0]


@jit
def _add_all_products(rows, m, lanes):
    """Add the products of the first m entries of all pairs of rows to ``lanes`` (R, R, LANES)."""
    for s in range(rows.shape[0]):
        for t in range(s + 1):
            if m == BLOCK:
                _add_block_products(rows[s], rows[t], lanes[s, t])
                continue
            for i in range(0, m, LANES):
                j = min(m, i + LANES)
                _add_products(rows[s, i:j], rows[t, i:j], lanes[s, t, : j - i])


@jit
def _fold_all(lanes, out):
    for s in range(lanes.shape[0]):
        for t in range(s + 1):
            out[s, t] = out[t, s] = _fold(lanes[s, t])


@jit
def products(base, models, out):
    """See `Products.products`."""
    number = 1 + models.shape[0]
    rows = np.empty((number, BLOCK))
    lanes = np.empty((number, number, LANES))
    for part in range(out.shape[0]):
        lanes[:] = 0.0
        end = min(base.size, (part + 1) * PART)
        for start in range(part * PART, end, BLOCK):
            stop = min(end, start + BLOCK)
            m = stop - start
            _to_double(base[start:stop], rows[0, :m])
            for t in range(1, number):
                _to_task_vector(models[t - 1, start:stop], rows[0, :m], rows[t, :m])
            _add_all_products(rows, m, lanes)
        _fold_all(lanes, out[part])


@jit
def row_products(rows, out):
    """See `Products.row_products`."""
    lanes = np.empty((rows.shape[0], rows.shape[0], LANES))
    for part in range(out.shape[0]):
        lanes[:] = 0.0
        end = min(rows.shape[1], (part + 1) * PART)
        for start in range(part * PART, end, BLOCK):
            mine = rows[:, start : min(end, start + BLOCK)]
            _add_all_products(mine, mine.shape[1], lanes)
        _fold_all(lanes, out[part])
