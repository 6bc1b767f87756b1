"""How parameters are chosen in the figures: on validation rows, the same care for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper.family import Family

from breadcrumbs.evaluate.results.seeds import spread

#: The methods that the paper's figures compare.
COMPARED = ("task_arithmetic", "breadcrumbs")
#: Of the paper: section 4 and its published settings.
TAILS = ({"beta": 0.85, "gamma": 0.993}, {"beta": 0.9, "gamma": 0.99})
ALPHAS = {
    "task_arithmetic": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0),
    "breadcrumbs": (0.3, 0.5, 0.7, 1.0, 1.3, 1.6),
}


def settings(method: str) -> list[dict[str, Any]]:
    """Return what is tried of a method."""
    tails = TAILS if method == "breadcrumbs" else ({},)
    return [{**cut, "alpha": alpha} for cut in tails for alpha in ALPHAS[method]]


def chosen(
    family: Family, method: str, merged: Sequence[Sequence[str]], saying: str = ""
) -> tuple[dict[str, Any], float]:
    """Return the setting that is best on average over sets of merged tasks, and that average.

    Each set is scored on the validation rows of its own tasks.
    """
    tried = settings(method)
    recipes = [family.recipe(method, tasks, **values) for values in tried for tasks in merged]
    scored = family.scores(recipes, "validation", list(merged) * len(tried), saying)
    size = len(merged)
    means = [
        sum(one.mean for one in scored[i * size : (i + 1) * size]) / size for i in range(len(tried))
    ]
    best = max(range(len(tried)), key=means.__getitem__)
    return tried[best], means[best]


def mean(values: Mapping[str, float]) -> float:
    """Return the mean of the values."""
    return sum(values.values()) / len(values)


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of several seeds and its standard error (0 of one)."""
    found = spread(values)
    return found.value, found.stderr or 0.0
