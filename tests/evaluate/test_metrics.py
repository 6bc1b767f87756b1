"""Metrics and their standard errors, against numbers computed by hand and slow loops."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from breadcrumbs.evaluate.data import metrics


def test_accuracy_and_its_standard_error() -> None:
    answers, labels = np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])
    value, error = metrics.measured("accuracy", answers, labels)
    assert value == 0.75
    assert error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


def test_matthews_by_hand() -> None:
    # 6 true positives, 3 true negatives, 1 false positive, 2 false negatives.
    labels = np.array([1] * 8 + [0] * 4)
    answers = np.array([1] * 6 + [0] * 2 + [1] + [0] * 3)
    expected = (6 * 3 - 1 * 2) / math.sqrt(7 * 8 * 4 * 5)
    assert metrics.matthews(answers, labels) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_matthews_is_the_correlation_of_indicators(seed: int) -> None:
    """Of K classes: the sum of covariances of indicators over the root of those of each side."""
    draw = random.Random(seed)
    classes, n = draw.randint(2, 5), draw.randint(3, 40)
    labels = [draw.randrange(classes) for _ in range(n)]
    answers = [a if draw.random() < 0.5 else draw.randrange(classes) for a in labels]

    def covariance(first: list[int], second: list[int]) -> float:
        total = 0.0
        for k in range(classes):
            p = sum(x == k for x in first) / n
            q = sum(y == k for y in second) / n
            for x, y in zip(first, second, strict=True):
                total += ((x == k) - p) * ((y == k) - q)
        return total

    root = math.sqrt(covariance(answers, answers) * covariance(labels, labels))
    expected = covariance(answers, labels) / root if root > 1e-12 else 0.0
    assert metrics.matthews(np.array(answers), np.array(labels)) == pytest.approx(expected)


def test_a_constant_answer_correlates_with_nothing() -> None:
    assert metrics.matthews(np.zeros(4, int), np.array([0, 1, 0, 1])) == 0
    assert metrics.f1(np.zeros(4, int), np.zeros(4, int)) == 0


def test_f1_by_hand() -> None:
    labels, answers = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    precision, recall = 2 / 3, 2 / 3
    expected = 2 * precision * recall / (precision + recall)
    assert metrics.f1(answers, labels) == pytest.approx(expected)


def test_the_bootstrap_agrees_with_the_formula_where_there_is_one() -> None:
    """An accuracy measured as a metric without a formula has about the binomial's error."""
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=400)
    answers = np.where(rng.random(400) < 0.8, labels, 1 - labels)
    _, formula = metrics.measured("accuracy", answers, labels)
    _, found = metrics.measured("f1", answers, labels)
    assert found == metrics.measured("f1", answers, labels)[1]
    assert 0.5 * formula < found < 2 * formula
