"""Fig. 2: every subset of the tasks, merged, and scored on all tasks and on those in it.

Parameters are chosen for each number of tasks, on validation rows of two subsets of that size,
and hold for all subsets of it.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from experiments.paper.choosing import COMPARED, chosen, mean, summary
from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, shown


def measure(family: Family) -> dict[str, Any]:
    """Return, of each method and subset, the mean normalised accuracy on all and on its tasks."""
    base, own = family.base("test"), family.own("test")
    zero = mean({name: base[name] / own[name] for name in family.tasks})
    result: dict[str, Any] = {"none": zero, "settings": {}, "subsets": {}}
    for method in COMPARED:
        found, rows = {}, []
        for size in range(1, len(family.tasks) + 1):
            every = [list(one) for one in itertools.combinations(family.tasks, size)]
            few = random.Random(size).sample(every, min(2, len(every)))
            setting, _ = chosen(family, method, few, f"{method} {size}")
            found[str(size)] = setting
            recipes = [family.recipe(method, tasks, **setting) for tasks in every]
            for tasks, one in zip(
                every, family.scores(recipes, "test", saying=f"{method} {size}"), strict=True
            ):
                seen = mean({name: one.normalised[name] for name in tasks})
                rows.append([size, round(one.mean, 5), round(seen, 5)])
            say(f"{method} of {size}: {setting}")
        result["settings"][method], result["subsets"][method] = found, rows
    return result


def by_size(found: dict[str, Any], method: str, column: int) -> dict[int, tuple[float, float]]:
    """Return number of tasks -> (mean over subsets and seeds, standard error over seeds)."""
    means: dict[int, list[float]] = defaultdict(list)
    for seed in by_seed(found):
        sizes: dict[int, list[float]] = defaultdict(list)
        for row in seed["subsets"][method]:
            sizes[row[0]].append(row[column])
        for size, values in sizes.items():
            means[size].append(sum(values) / len(values))
    return {size: summary(values) for size, values in sorted(means.items())}


def table(found: dict[str, Any]) -> str:
    """Return accuracy by number of tasks merged."""
    rows = []
    columns = {
        (method, column): by_size(found, method, column) for method in COMPARED for column in (1, 2)
    }
    for size in columns[COMPARED[0], 1]:
        cells = [columns[method, column][size] for column in (1, 2) for method in COMPARED]
        rows.append([str(size), *(shown(*cell) for cell in cells)])
    heads = [f"{NAMES[m]}, {on}" for on in ("all tasks", "merged tasks") for m in COMPARED]
    return markdown(["tasks merged", *heads], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw both means against the number of tasks."""
    with drawn(folder / "fig2.svg", 8.0, ncols=2, sharey=True) as (_, axes):
        titles = ("all tasks", "the merged tasks")
        for column, (axis, title) in enumerate(zip(axes, titles, strict=True), 1):
            for method in COMPARED:
                points = by_size(found, method, column)
                axis.errorbar(
                    list(points),
                    [100 * value for value, _ in points.values()],
                    [100 * error for _, error in points.values()],
                    color=COLOURS[method],
                    label=NAMES[method],
                    marker="o",
                    markersize=3,
                )
            axis.set_xlabel("tasks merged")
            axis.set_title(f"scored on {title}")
        axes[0].set_ylabel("normalised accuracy, %")
        axes[0].legend()
