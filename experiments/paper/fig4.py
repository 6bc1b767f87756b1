"""Fig. 4: a long sequence of tasks, merged one after the other, parameters from the first ten.

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
from experiments.paper.tables import by_seed, markdown, percent

from breadcrumbs.store import Store

FIRST = 10
AT = (1, 5, 10, 20, 30, 40, 60, 80, 100, 120, 140, 160, 180, 200)
#: Of the paper, for 200 tasks.
TAILS = {"beta": 0.85, "gamma": 0.993}


def measure(family: Family) -> dict[str, Any]:
    """Return the mean normalised accuracy on the tasks merged so far, by their number."""
    result: dict[str, Any] = {"at": [n for n in AT if n <= len(family.tasks)]}
    first = family.tasks[:FIRST]
    for method in COMPARED:
        tried = settings(method)
        if method == "breadcrumbs":
            tried += [{**TAILS, "alpha": alpha} for alpha in (0.1, 0.2)]
        recipes = [family.recipe(method, first, **values) for values in tried]
        found = family.scores(recipes, "validation", [first] * len(recipes), method)
        best = max(found, key=lambda one: one.mean)
        setting = dict(best.recipe.parameters)
        sets = [family.tasks[:n] for n in result["at"]]
        if method == "breadcrumbs":
            values, seconds = _stored(family, sets, setting)
            result["seconds"] = seconds
        else:
            merged = [family.recipe(method, tasks, **setting) for tasks in sets]
            scored = family.scores(merged, "test", sets, method)
            values = [mean(one.normalised) for one in scored]
        result[method] = {"setting": setting, "values": [round(value, 5) for value in values]}
        say(f"{method}: {result[method]}")
    base, own = family.base("test"), family.own("test")
    result["base"] = [
        round(mean({name: base[name] / own[name] for name in family.tasks[:n]}), 5)
        for n in result["at"]
    ]
    return result


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
                values.append(mean(family.on(str(output), tasks)))
                each = (added - began) / (len(tasks) - inside)
                seconds.append({"add": round(each, 2), "merge": round(merged - added, 2)})
                inside = len(tasks)
                say(f"{inside} in the store: {values[-1]:.4f}, {seconds[-1]}")
    return values, seconds


def table(found: dict[str, Any]) -> str:
    """Return accuracy along the sequence, and what a further task costs."""
    every, rows = by_seed(found), []
    for i, n in enumerate(every[0]["at"]):
        cells = [percent([one[method]["values"][i] for one in every]) for method in COMPARED]
        times = [fmean(one["seconds"][i][key] for one in every) for key in ("add", "merge")]
        shown = [f"{seconds:.1f} s" for seconds in times]
        rows.append([str(n), percent([one["base"][i] for one in every]), *cells, *shown])
    head = ["tasks merged", "base", *(NAMES[method] for method in COMPARED)]
    return markdown([*head, "adding one", "writing the model"], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw normalised accuracy against the number of tasks merged."""
    seeds = by_seed(found)
    with drawn(folder / "fig4.svg", 6.0) as (_, axis):
        at = seeds[0]["at"]
        for method in COMPARED:
            columns = zip(*(seed[method]["values"] for seed in seeds), strict=True)
            points = [summary(column) for column in columns]
            middle = [100 * value for value, _ in points]
            axis.plot(at, middle, color=COLOURS[method], label=NAMES[method], marker="o", ms=3)
            low = [100 * (value - error) for value, error in points]
            high = [100 * (value + error) for value, error in points]
            axis.fill_between(at, low, high, color=COLOURS[method], alpha=0.2)
        bases = [summary(c)[0] for c in zip(*(seed["base"] for seed in seeds), strict=True)]
        axis.plot(at, [100 * value for value in bases], ":", color="#999999", label="base")
        axis.set_xlabel("tasks merged (parameters from the first 10)")
        axis.set_ylabel("normalised accuracy, %")
        axis.legend()
