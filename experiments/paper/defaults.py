"""Settings for whoever has no validation rows: what each loses against the best one of its method.

All sizes that a suite has, on validation rows: a default is a choice too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.paper.alpha import CASES, sizes
from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.family import Family, say

from breadcrumbs import automatic, merging

#: Results of several families stand side by side, by the names of their suites.
SUITE = "several suites"


def measure(family: Family) -> dict[str, Any]:
    """Return a row for each number of tasks and case: validation scores by alpha, and by auto's."""
    rows = []
    for size in [size for size in sizes(family) if size > 1]:
        tasks = family.tasks[:size]
        for method, values, alphas in CASES:
            if method == "consensus" and size < 4:
                continue  # two masks that agree are few, or none
            with merging.opened(family.recipe(method, tasks, **values, alpha="auto")) as plan:
                auto = automatic.fixed(plan, threads=2).recipe.parameters["alpha"]
            tried = [family.recipe(method, tasks, **values, alpha=a) for a in (*alphas, auto)]
            scored = family.scores(tried, "validation", [tasks] * len(tried), method)
            *fixed, last = [round(one.mean, 5) for one in scored]
            found = {str(alpha): value for alpha, value in zip(alphas, fixed, strict=True)}
            row = {"tasks": size, "method": method, "parameters": values}
            rows.append(row | {"values": found | {"auto": last}, "auto": auto})
            say(str(rows[-1]))
    return {family.suite.name: rows}


def losses(found: dict[str, Any]) -> dict[str, dict[str, dict[tuple[str, int], float]]]:
    """Return method -> setting -> (suite, tasks) -> what it loses against the method's best.

    Means over seeds; the best is that of all settings of the method in each seed.
    """
    every: dict[str, dict[str, dict[tuple[str, int], list[float]]]] = {}
    for seed in found["seeds"].values():
        for suite, rows in seed.items():
            for row in rows:
                same = [
                    one
                    for one in rows
                    if (one["tasks"], one["method"]) == (row["tasks"], row["method"])
                ]
                best = max(value for one in same for value in one["values"].values())
                mine = every.setdefault(row["method"], {})
                for alpha, value in row["values"].items():
                    setting = ", ".join(f"{k} {v}" for k, v in row["parameters"].items())
                    name = f"{setting}, alpha {alpha}" if setting else f"alpha {alpha}"
                    place = mine.setdefault(name, {}).setdefault((suite, row["tasks"]), [])
                    place.append(best - value)
    return {
        method: {
            setting: {key: sum(values) / len(values) for key, values in cells.items()}
            for setting, cells in settings.items()
        }
        for method, settings in every.items()
    }


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw what Breadcrumbs and Task Arithmetic lose by number of tasks: the safest, and auto."""
    with drawn(folder / "defaults.svg") as (_, axis):
        for method in ("task_arithmetic", "breadcrumbs"):
            settings = losses(found)[method]
            for setting in ranked(settings)[:1] + [s for s in settings if s.endswith("auto")][:1]:
                cells = sorted(settings[setting].items(), key=lambda item: item[0][1])
                axis.plot(
                    [tasks for (_, tasks), _ in cells],
                    [100 * value for _, value in cells],
                    "--o" if setting.endswith("auto") else "-o",
                    color=COLOURS[method],
                    label=f"{NAMES[method]}, {setting}",
                )
        axis.set_xlabel("tasks")
        axis.set_ylabel("points lost against the best setting")
        axis.legend(fontsize=7)


def ranked(settings: dict[str, dict[tuple[str, int], float]]) -> list[str]:
    """Return fixed settings by what they lose where they lose most, the safest first."""
    fixed = [setting for setting in settings if not setting.endswith("auto")]
    return sorted(fixed, key=lambda setting: max(settings[setting].values()))
