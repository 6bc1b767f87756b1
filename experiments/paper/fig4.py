"""Fig. 4: a long sequence of tasks, merged one after the other, parameters from the first ten.

Beside the paper's question, the same with an alpha that is found anew from the weights, at some
numbers of tasks: finding it reads all models once more.

For Breadcrumbs a store takes the tasks one by one, so that the sum is kept and each task costs the
same. Task Arithmetic keeps whole task vectors, of which a store would be as large as the models: it
is merged again at each point.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.choosing import COMPARED, mean, settings, summary
from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, shown

from breadcrumbs.store import Store

FIRST = 10
AT = (1, 5, 10, 20, 30, 40, 60, 80, 100, 120, 140, 160, 180, 200)
#: Of the paper, for 200 tasks.
TAILS = {"beta": 0.85, "gamma": 0.993}
AUTO, AUTO_AT = ", auto", (10, 40, 80, 200)
LINES = {method + more: NAMES[method] + more for more in ("", AUTO) for method in COMPARED}


def measure(family: Family) -> dict[str, Any]:
    """Return the mean normalised accuracy on the tasks merged so far, by their number."""
    result: dict[str, Any] = {"at": [n for n in AT if n <= len(family.tasks)]}
    first, sets = family.tasks[:FIRST], [family.tasks[:n] for n in result["at"]]
    for method in COMPARED:
        tried = settings(method)
        if method == "breadcrumbs":
            tried += [{**TAILS, "alpha": alpha} for alpha in (0.1, 0.2)]
        recipes = [family.recipe(method, first, **values) for values in tried]
        found = family.scores(recipes, "validation", [first] * len(recipes), method)
        best = max(found, key=lambda one: one.mean)
        setting = dict(best.recipe.parameters)
        if method == "breadcrumbs":
            values, result["seconds"] = _stored(family, sets, setting)
        else:
            values = _merged(family, method, sets, setting)
        result[method] = {"setting": setting, "at": result["at"], "values": values}
        some = [tasks for tasks in sets if len(tasks) in AUTO_AT] or sets[-1:]
        result[method + AUTO] = {
            "at": [len(tasks) for tasks in some],
            "values": _merged(family, method, some, {**setting, "alpha": "auto"}),
        }
        say(f"{method}: {result[method]}, auto: {result[method + AUTO]}")
    base, own = family.base("test"), family.own("test")
    means = [mean({name: base[name] / own[name] for name in tasks}) for tasks in sets]
    result["base"] = {"at": result["at"], "values": [round(value, 5) for value in means]}
    return result


def _merged(
    family: Family, method: str, sets: list[list[str]], setting: dict[str, Any]
) -> list[float]:
    """Return the scores of merges of each set of tasks."""
    recipes = [family.recipe(method, tasks, **setting) for tasks in sets]
    return [round(one.mean, 5) for one in family.scores(recipes, "test", sets, method)]


def _stored(
    family: Family, sets: list[list[str]], setting: dict[str, Any]
) -> tuple[list[float], list[dict[str, float]]]:
    """Put the tasks into a store; return the scores of its model with each set, and seconds."""
    values, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        output, inside = Path(folder, "merged"), 0
        with Store.create(Path(folder, "store"), family.suite.base, **setting) as store:
            for tasks in sets:
                began = time.perf_counter()
                for name in tasks[inside:]:
                    store.add(name, family.model(name))
                added = time.perf_counter()
                store.merge(output, force=True)
                merged = time.perf_counter()
                values.append(round(mean(family.on(str(output), tasks)), 5))
                each = (added - began) / (len(tasks) - inside)
                seconds.append({"add": round(each, 2), "merge": round(merged - added, 2)})
                inside = len(tasks)
                say(f"{inside} in the store: {values[-1]:.4f}, {seconds[-1]}")
    return values, seconds


def lines(found: dict[str, Any]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return line -> number of tasks -> (mean over seeds, its error), of what all seeds have."""
    every, result = by_seed(found), {}
    for line in ("base", *LINES):
        if all(line in one for one in every):
            at = every[0][line]["at"]
            columns = zip(*(one[line]["values"] for one in every), strict=True)
            result[line] = dict(zip(at, map(summary, columns), strict=True))
    return result


def table(found: dict[str, Any]) -> str:
    """Return accuracy along the sequence, and what a further task costs."""
    every, mine, rows = by_seed(found), lines(found), []
    for i, n in enumerate(every[0]["at"]):
        cells = [shown(*line[n]) if n in line else "" for line in mine.values()]
        times = [fmean(one["seconds"][i][key] for one in every) for key in ("add", "merge")]
        rows.append([str(n), *cells, *(f"{seconds:.1f} s" for seconds in times)])
    head = ["tasks merged", *(LINES.get(line, line) for line in mine)]
    return markdown([*head, "adding one", "writing the model"], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw normalised accuracy against the number of tasks merged."""
    with drawn(folder / "fig4.svg", 6.0) as (_, axis):
        for line, points in lines(found).items():
            color = COLOURS.get(line.removesuffix(AUTO), "#999999")
            style = ":" if line == "base" else "--s" if line.endswith(AUTO) else "-o"
            at, middle = list(points), [100 * value for value, _ in points.values()]
            axis.plot(at, middle, style, color=color, label=LINES.get(line, line), ms=3)
            low = [100 * (value - error) for value, error in points.values()]
            high = [100 * (value + error) for value, error in points.values()]
            axis.fill_between(at, low, high, color=color, alpha=0.2)
        axis.set_xlabel("tasks merged (parameters from the first 10)")
        axis.set_ylabel("normalised accuracy, %")
        axis.legend()
