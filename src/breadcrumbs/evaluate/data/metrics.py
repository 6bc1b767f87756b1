"""What is reported of a model's answers: a number and its standard error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Resamples of the rows, for the standard error of what is no mean.
RESAMPLES = 1000


def accuracy(answers: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of right answers."""
    return float(np.mean(answers == labels))


def matthews(answers: np.ndarray, labels: np.ndarray) -> float:
    """Return Matthews' correlation of answers and labels, of any number of classes.

    0 where all answers, or all labels, are one class. Gorodkin, "Comparing two K-category
    assignments by a K-category correlation coefficient", 2004.
    """
    classes = int(max(answers.max(), labels.max())) + 1
    counts = np.bincount(labels * classes + answers, minlength=classes * classes)
    table = counts.reshape(classes, classes).astype(np.float64)
    n, right = table.sum(), np.trace(table)
    truth, given = table.sum(axis=1), table.sum(axis=0)
    spread = (n * n - truth @ truth) * (n * n - given @ given)
    return float((n * right - truth @ given) / np.sqrt(spread)) if spread > 0 else 0.0


def f1(answers: np.ndarray, labels: np.ndarray) -> float:
    """Return the F1 of class 1: 2 hits / (answers + labels of it), 0 where there are none."""
    hits = np.count_nonzero((answers == 1) & (labels == 1))
    total = np.count_nonzero(answers == 1) + np.count_nonzero(labels == 1)
    return float(2 * hits / total) if total else 0.0


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy,
    "matthews": matthews,
    "f1": f1,
}
#: Of answers that a language model writes: which are the row's label, to the letter.
EXACT_MATCH = "exact_match"
#: Those that are no means over rows, as accuracy and what lm-eval counts are.
NO_MEANS = ("matthews", "f1")


def measured(name: str, answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the metric and its standard error.

    Of an accuracy sqrt(p (1 - p) / n); of others that of the bootstrap, with a fixed seed.
    """
    value = METRICS[name](answers, labels)
    if name == "accuracy":
        return value, float(np.sqrt(value * (1 - value) / len(labels)))
    rng = np.random.default_rng(0)
    draws = rng.integers(len(labels), size=(RESAMPLES, len(labels)))
    return value, float(np.std([METRICS[name](answers[d], labels[d]) for d in draws]))
