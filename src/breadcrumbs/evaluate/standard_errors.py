"""Standard errors of what rows of results say: of one task, of ratios, differences and means.

Only the rows of a split are random here: a sample of all rows there could be. Everything else is
taken as it is: the weights, the heads, the tasks. So a standard error says nothing about another
seed of the fine-tuning, and nothing about other tasks. docs/evaluation.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from breadcrumbs.evaluate.results import Row


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    stderr: float

    @property
    def clear(self) -> bool:
        """Whether the number is further from 0 than two standard errors."""
        return abs(self.value) > 2 * self.stderr


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean over tasks: independent errors, sqrt(sum of squares) / number."""
    number = len(estimates)
    value = math.fsum(one.value for one in estimates) / number
    return Estimate(value, math.sqrt(math.fsum(one.stderr**2 for one in estimates)) / number)


def ratio(row: Row, reference: Row) -> Estimate | None:
    """Return ``row / reference`` by the delta method, or None where the reference is not above 0.

    The reference is 1 of itself, without error.
    """
    if row.key == reference.key:
        return Estimate(1.0, 0.0)
    if reference.value <= 0:
        return None
    value = row.value / reference.value
    terms = [(1 / reference.value, row), (-value / reference.value, reference)]
    return Estimate(value, _of_sum(terms))


def difference(first: Row, second: Row) -> Estimate:
    """Return ``first - second``, paired where both rows know which answers were right."""
    return Estimate(first.value - second.value, _of_sum([(1.0, first), (-1.0, second)]))


def ratio_difference(first: Row, second: Row, reference: Row) -> Estimate | None:
    """Return ``(first - second) / reference``, or None where the reference is not above 0."""
    if reference.value <= 0:
        return None
    unit = 1 / reference.value
    value = (first.value - second.value) * unit
    terms = [(unit, first), (-unit, second), (-value * unit, reference)]
    return Estimate(value, _of_sum(terms))


def _of_sum(terms: Sequence[tuple[float, Row]]) -> float:
    """Return the standard error of a sum of factor times value."""
    variance = math.fsum(
        a * b * covariance(first, second) for a, first in terms for b, second in terms
    )
    return math.sqrt(max(0.0, variance))  # rounding may leave a little less than nothing


def covariance(first: Row, second: Row) -> float:
    """Return the covariance of two rows' values over draws of the rows.

    With the answers of both: (P(both right) - P(first right) P(second right)) / n, which of a row
    with itself is p (1 - p) / n. Without them two models count as independent, which is more
    than there is wherever they tend to be right together.
    """
    if first.rows != second.rows or first.split != second.split:
        return 0.0
    if not (_answers(first) and _answers(second)) or first.items != second.items:
        return first.stderr**2 if first.key == second.key else 0.0
    assert first.hits is not None and second.hits is not None
    bits = np.frombuffer(first.hits, np.uint8) & np.frombuffer(second.hits, np.uint8)
    n, both = first.items, int(np.bitwise_count(bits).sum())
    return (n * both - first.correct * second.correct) / n**3  # in whole numbers: exactly 0 is 0


def _answers(row: Row) -> bool:
    """Whether the value is the mean of the answers that the row holds."""
    return row.hits is not None and row.metric == "accuracy"
