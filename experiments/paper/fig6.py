"""Fig. 6: every pair of tasks."""

from __future__ import annotations

import itertools
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.choosing import COMPARED, chosen, summary
from experiments.paper.drawing import NAMES, drawn
from experiments.paper.family import Family
from experiments.paper.tables import by_seed, markdown, parameters, percent


def measure(family: Family) -> dict[str, Any]:
    """Return the mean normalised accuracy of both tasks of every pair, by method.

    One setting for all pairs, chosen on the validation rows of every fourth.
    """
    pairs = [list(pair) for pair in itertools.combinations(family.tasks, 2)]
    result: dict[str, Any] = {"pairs": pairs, "settings": {}, "values": {}}
    for method in COMPARED:
        setting, _ = chosen(family, method, pairs[::4], f"{method} pairs")
        recipes = [family.recipe(method, pair, **setting) for pair in pairs]
        scored = family.scores(recipes, "test", pairs, f"{method} pairs")
        result["settings"][method] = setting
        result["values"][method] = [round(one.mean, 5) for one in scored]
    return result


def table(found: dict[str, Any]) -> str:
    """Return how the two methods compare on pairs of tasks."""
    rows = []
    every = by_seed(found)
    for method in COMPARED:
        means = [fmean(one["values"][method]) for one in every]
        rows.append(
            [NAMES[method], percent(means), parameters([s["settings"][method] for s in every])]
        )
    differences = [
        [up - across for across, up in zip(*(one["values"][m] for m in COMPARED), strict=True)]
        for one in every
    ]
    mean, error = summary([fmean(one) for one in differences])
    pairs = sum(map(len, differences))
    better = sum(value > 0 for one in differences for value in one)
    text = (
        f"Breadcrumbs is ahead on {better} of {pairs} pairs; the difference is"
        f" {100 * mean:+.2f} ± {100 * error:.2f} points."
    )
    return f"{markdown(['method', 'mean of all pairs, %', 'chosen'], rows)}\n\n{text}"


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw one method against the other, a point a pair."""
    with drawn(folder / "fig6.svg", 4.0, 4.0) as (_, axis):
        across, up = COMPARED
        points = [
            (100 * x, 100 * y)
            for seed in by_seed(found)
            for x, y in zip(seed["values"][across], seed["values"][up], strict=True)
        ]
        low, high = min(map(min, points)) - 1, max(map(max, points)) + 1
        axis.plot([low, high], [low, high], color="#999999", linewidth=0.8)
        axis.scatter(*zip(*points, strict=True), s=10, color="#0072B2", alpha=0.6)
        axis.set_xlabel(f"{NAMES[across]}, normalised accuracy, %")
        axis.set_ylabel(f"{NAMES[up]}, normalised accuracy, %")
