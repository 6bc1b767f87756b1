"""Of an election in blocks: what the entries of a sum of 0 would be with the other majority."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LARGEST
from breadcrumbs.kernels.numba.steps import _count_unusual, _merge, _round, inline, jit


@jit
def _sum_signs(total):
    votes = np.int64(0)
    for i in range(total.size):
        votes += np.int64(total[i] > 0.0) - np.int64(total[i] < 0.0)
    return votes


@jit
def _mark_opposite(total, size, marks):
    """Mark the sums of 0 of terms that are not."""
    for i in range(total.size):
        marks[i] = np.uint8((total[i] == 0.0) & (size[i] > 0.0))


@jit
def _mark_range(total, base, highest, marks):
    for i in range(total.size):
        marks[i] = np.uint8((total[i] == 0.0) & (highest[i] > base[i]))


@jit
def _places(words, out):
    """Write where the marks are, eight at a time; return how many."""
    n = 0
    for w in range(words.size):
        word = words[w]
        if word != 0:
            for j in range(8):
                if (word >> np.uint64(8 * j)) & np.uint64(1):
                    out[n] = 8 * w + j
                    n += 1
    return n


@jit
def _gather(values, places, out):
    for i in range(places.size):
        out[i] = values[places[i]]


@jit
def _mark(kind, wide, total, size, highest, marks, places):
    """Write which entries of a block are undecided; return how many."""
    marks[:] = 0
    if kind == LARGEST:
        _mark_range(total, wide, highest, marks)
    else:
        _mark_opposite(total, size, marks)
    return _places(marks.view(np.uint64), places)


@jit
def _keep_zeros(base, step, alpha, merged):
    """Where nothing is added keep the base's zero, with its sign."""
    for i in range(merged.size):
        if merged[i] == 0.0 and alpha * step[i] == 0.0:
            merged[i] = base[i]


@inline
def _merge_step(wide, step, alpha, merged, single, out):
    _merge(wide, step, alpha, merged)
    unusual = _count_unusual(merged)
    if unusual:
        _keep_zeros(wide, step, alpha, merged)
    _round(merged, single, unusual, out)
