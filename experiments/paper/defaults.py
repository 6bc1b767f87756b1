"""Settings for whoever has no validation rows: what each loses against the best one of its method.

Out of what `experiments.paper.alpha` measured on validation rows: a default is a choice too.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.tables import by_seed, markdown


def losses(found: dict[str, Any]) -> dict[str, dict[str, dict[tuple[str, int], float]]]:
    """Return method -> setting -> (suite, tasks) -> what it loses against the method's best.

    Means over seeds; the best is that of all settings of the method in each seed.
    """
    every: dict[str, dict[str, dict[tuple[str, int], list[float]]]] = {}
    for seed in by_seed(found):
        for suite, rows in seed.items():
            for row in rows:
                same = [
                    one
                    for one in rows
                    if (one["tasks"], one["method"]) == (row["tasks"], row["method"])
                ]
                best = max(value for one in same for value in one["values"].values())
                mine = every.setdefault(row["method"], {})
                for picked, value in row["values"].items():
                    setting = ", ".join(f"{k} {v}" for k, v in row["parameters"].items())
                    name = f"{setting}, alpha {picked}" if setting else f"alpha {picked}"
                    place = mine.setdefault(name, {}).setdefault((suite, row["tasks"]), [])
                    place.append(best - value)
    return {
        method: {
            setting: {key: sum(values) / len(values) for key, values in cells.items()}
            for setting, cells in settings.items()
        }
        for method, settings in every.items()
    }


def table(found: dict[str, Any]) -> str:
    """Return what settings lose that nobody chose for the models at hand."""
    rows, columns = [], []
    for method, settings in losses(found).items():
        mine = next(iter(settings.values()))
        if len(mine) == 1:
            continue  # of one size there is no default to choose
        columns = columns or list(mine)
        automatic = [setting for setting in settings if setting.endswith("auto")]
        for setting in [*ranked(settings)[:3], *automatic]:
            cells = [settings[setting].get(column) for column in columns]
            lost = [cell for cell in cells if cell is not None]
            shown = ["" if cell is None else f"{100 * cell:.1f}" for cell in cells]
            ends = [f"{100 * fmean(lost):.1f}", f"{100 * max(lost):.1f}"]
            rows.append([NAMES.get(method, f"`{method}`"), setting, *shown, *ends])
    heads = [f"{suite}, {size}" for suite, size in columns]
    if not rows:
        return ""
    return markdown(["method", "setting", *heads, "mean", "most"], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw what Breadcrumbs and Task Arithmetic lose by number of tasks: the safest, and auto."""
    every = losses(found)
    if not every:
        return
    with drawn(folder / "defaults.svg", 6.0) as (_, axis):
        for method in ("task_arithmetic", "breadcrumbs"):
            settings = every[method]
            for setting in ranked(settings)[:1] + [s for s in settings if s.endswith("auto")][-1:]:
                cells = sorted(settings[setting].items(), key=lambda item: item[0][1])
                axis.plot(
                    [tasks for (_, tasks), _ in cells],
                    [100 * value for _, value in cells],
                    "--o" if setting.endswith("auto") else "-o",
                    color=COLOURS[method],
                    label=f"{NAMES[method]}, {setting}",
                )
        axis.set_xscale("log", base=2)
        sizes = sorted({tasks for cells in every["breadcrumbs"].values() for _, tasks in cells})
        axis.set_xticks(sizes, map(str, sizes))
        axis.set_xlabel("tasks")
        axis.set_ylabel("points lost against the best setting")
        axis.set_ylim(top=1.4 * axis.get_ylim()[1])  # room for the legend
        axis.legend(fontsize=7, loc="upper center", ncols=2)


def ranked(settings: dict[str, dict[tuple[str, int], float]]) -> list[str]:
    """Return fixed settings by what they lose where they lose most, the safest first."""
    fixed = [setting for setting in settings if not setting.endswith("auto")]
    return sorted(fixed, key=lambda setting: max(settings[setting].values()))
