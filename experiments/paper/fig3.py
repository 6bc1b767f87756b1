"""Fig. 3: parameters from the first 1, 2 or 3 tasks, kept while all others are merged too."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from experiments.paper.choosing import COMPARED, chosen, summary
from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.family import Family
from experiments.paper.tables import by_seed, markdown, shown

FEW = (1, 2, 3)
ORDERS = 2


def measure(family: Family) -> dict[str, Any]:
    """Return the normalised accuracy on the merged tasks, by number of tasks that were tuned on.

    For comparison, ``all``: parameters chosen with all tasks merged, on all of them.
    """
    result: dict[str, Any] = {}
    for method in COMPARED:
        rows = []
        everywhere, _ = chosen(family, method, [family.tasks], f"{method} from all")
        for order in range(ORDERS):
            tasks = random.Random(order).sample(family.tasks, len(family.tasks))
            prefixes = [tasks[:size] for size in range(1, len(tasks) + 1)]
            choices = {
                str(few): chosen(family, method, [tasks[:few]], f"{method} from {few}")[0]
                for few in FEW
            }
            for few, setting in {**choices, "all": everywhere}.items():
                recipes = [family.recipe(method, mine, **setting) for mine in prefixes]
                scored = family.scores(recipes, "test", prefixes, f"{method} from {few}")
                values = [round(one.mean, 5) for one in scored]
                rows.append({"from": few, "order": order, "setting": setting, "values": values})
        result[method] = rows
    return result


def curve(found: dict[str, Any], method: str, few: str) -> list[tuple[float, float]]:
    """Return (mean, standard error over seeds) for 1, 2, ... merged tasks."""
    seeds = []
    for seed in by_seed(found):
        mine = [row["values"] for row in seed[method] if row["from"] == few]
        seeds.append([sum(column) / len(mine) for column in zip(*mine, strict=True)])
    return [summary(column) for column in zip(*seeds, strict=True)]


def table(found: dict[str, Any]) -> str:
    """Return accuracy with all tasks merged, by how many were tuned on."""
    rows = []
    for few in [str(few) for few in FEW] + ["all"]:
        cells = []
        for method in COMPARED:
            cells.append(shown(*curve(found, method, few)[-1]))
        rows.append([few, *cells])
    return markdown(["tuned on", *(NAMES[method] for method in COMPARED)], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw one panel for each number of tasks tuned on."""
    with drawn(folder / "fig3.svg", 9.0, ncols=len(FEW), sharey=True) as (_, axes):
        for axis, few in zip(axes, FEW, strict=True):
            for method in COMPARED:
                for source, style in ((str(few), "-"), ("all", ":")):
                    points = curve(found, method, source)
                    axis.plot(
                        range(1, len(points) + 1),
                        [100 * value for value, _ in points],
                        style,
                        color=COLOURS[method],
                        label=NAMES[method] + (" tuned on all" if source == "all" else ""),
                    )
            axis.set_title(f"tuned on the first {few}")
            axis.set_xlabel("tasks merged")
        axes[0].set_ylabel("normalised accuracy, %")
        axes[0].legend(fontsize=7)
