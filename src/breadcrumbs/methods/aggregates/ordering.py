"""An order of models that is theirs, not the recipe's, so that sums over them have one result.

Float64 sums of several numbers depend on their order, and so do products of matrices that follow.
Models are put into the order of their content first. Equal ones may come in either order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from blake3 import blake3

from breadcrumbs.methods.parameters import Values

Weights = Sequence[float]
Coefficients = Callable[[np.ndarray, Weights, Values], np.ndarray]

#: Coefficients of models that nothing tells apart are equal but for rounding.
_ROUNDING = 1e-9


def by_content(rows: np.ndarray, weights: np.ndarray) -> list[int]:
    """Return the numbers of the contiguous rows (T, n) in the order of their weights and bytes."""
    content = Content(weights)
    content.add(rows)
    return content.order()


class Content:
    """The order of rows that come part by part."""

    def __init__(self, weights: np.ndarray):
        self.weights, self.hashers = weights.tolist(), [blake3() for _ in weights]

    def add(self, rows: np.ndarray) -> None:
        """Take the next entries of all rows (T, n)."""
        for row, hasher in zip(rows, self.hashers, strict=True):
            hasher.update(np.ascontiguousarray(row).view(np.uint8).data)

    def order(self) -> list[int]:
        """Return the numbers of the rows in the order of their weights and bytes."""
        keys = [(w, h.digest()) for w, h in zip(self.weights, self.hashers, strict=True)]
        return sorted(range(len(keys)), key=keys.__getitem__)


def permute(rows: np.ndarray, order: Sequence[int]) -> None:
    """Put ``rows[order[i]]`` into the place i of all, with one row of memory besides."""
    left = {i for i, source in enumerate(order) if i != source}
    while left:
        first = at = min(left)
        held = rows[first].copy()
        while order[at] != first:
            rows[at] = rows[order[at]]
            left.remove(at)
            at = order[at]
        rows[at] = held
        left.remove(at)


def apart(find: Coefficients) -> Coefficients:
    """Return a function of inner products that gives each model the same in any order of them.

    find, and what is returned: (gram (..., 1 + T, 1 + T), weights, values) -> coefficients (...,
    1 + T), the first of the base.
    """

    def found(gram: np.ndarray, weights: Weights, values: Values) -> np.ndarray:
        if len(weights) < 2:
            return find(gram, weights, values)
        keys = [_key(gram, weights, t) for t in range(1, 1 + len(weights))]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        places = np.array([0, *(1 + t for t in order)])
        mine = find(
            np.ascontiguousarray(gram[..., places[:, None], places]),
            [weights[t] for t in order],
            values,
        )
        result = np.empty_like(mine)
        result[..., places] = mine
        for t, key in enumerate(keys):
            alike = [1 + other for other, its in enumerate(keys) if its == key]
            if len(alike) > 1 and alike[0] == 1 + t:
                result[..., alike] = _levelled(result[..., alike])
        return result

    return found


def _key(gram: np.ndarray, weights: Weights, t: int) -> tuple[float, bytes, bytes, bytes]:
    row = np.sort(gram[..., t, 1:], axis=-1)
    own = gram[..., t, t], gram[..., 0, t], row
    a, b, c = (np.ascontiguousarray(part + 0.0).tobytes() for part in own)
    return float(weights[t - 1]), a, b, c


def _levelled(coefficients: np.ndarray) -> np.ndarray:
    """Return coefficients (..., n) with their mean in their place where they agree."""
    flat = coefficients.reshape(-1, coefficients.shape[-1])
    means = [math.fsum(line) / len(line) for line in flat.tolist()]
    mean = np.array(means).reshape(*coefficients.shape[:-1], 1)
    agree = np.abs(coefficients - mean) <= _ROUNDING * np.abs(mean)
    return np.where(agree.all(axis=-1, keepdims=True), mean, coefficients)
