"""Standard errors of what rows of results say: of one task, of ratios, differences and means.

Only the rows of a split are random here: a sample of all rows there could be. Everything else is
taken as it is: the weights, the heads, the tasks. So a standard error says nothing about another
seed of the fine-tuning, and nothing about other tasks. docs/evaluation.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from breadcrumbs.evaluate.data.metrics import NO_MEANS


class Row(Protocol):
    """What a standard error follows from of a `results.Row`, where all of these are explained."""

    @property
    def model(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def rows(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def stderr(self) -> float: ...
    @property
    def correct(self) -> int: ...
    @property
    def items(self) -> int: ...
    @property
    def hits(self) -> bytes | None: ...
    @property
    def finetuned(self) -> str | None: ...
    @property
    def own(self) -> bool: ...
    @property
    def key(self) -> Any: ...
    @property
    def divisor(self) -> Row | None: ...


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


def ratio(row: Row) -> Estimate | None:
    """Return the value divided by that of the fine-tuned model, by the delta method.

    None where that is not known, or not above 0. The fine-tuned model itself is 1, without error.
    """
    parts = _parts(row, 1.0)
    return None if parts is None else Estimate(parts[0], _of_sum(parts[1]))


def difference(first: Row, second: Row) -> Estimate:
    """Return ``first - second``, paired where both rows know which answers were right."""
    return Estimate(first.value - second.value, _of_sum([(1.0, first), (-1.0, second)]))


def ratio_difference(first: Row, second: Row) -> Estimate | None:
    """Return the difference of two normalised values, or None where one is not known."""
    one, two = _parts(first, 1.0), _parts(second, -1.0)
    if one is None or two is None:
        return None
    return Estimate(one[0] - two[0], _of_sum([*one[1], *two[1]]))


def _parts(row: Row, sign: float) -> tuple[float, list[tuple[float, Row]]] | None:
    """Return the ratio a / f, and its derivatives by a and by f, times ``sign``."""
    divisor = row.divisor
    if row.own:
        return 1.0, []
    if divisor is None or divisor.value <= 0:
        return None
    value, unit = row.value / divisor.value, sign / divisor.value
    return value, [(unit, row), (-value * unit, divisor)]


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
    if not paired(first, second):
        return first.stderr**2 if first.key == second.key else 0.0
    assert first.hits is not None and second.hits is not None
    bits = np.frombuffer(first.hits, np.uint8) & np.frombuffer(second.hits, np.uint8)
    n, both = first.items, int(np.bitwise_count(bits).sum())
    return (n * both - first.correct * second.correct) / n**3  # in whole numbers: exactly 0 is 0


def paired(first: Row, second: Row) -> bool:
    """Whether both values are means of answers to the same rows, which are known one by one."""
    return first.rows == second.rows and all(
        row.hits is not None and row.metric not in NO_MEANS for row in (first, second)
    )
