"""`alpha: auto` against alpha chosen on validation rows, by method and number of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper import defaults
from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown

from breadcrumbs.merging import calibration, opening
from breadcrumbs.plan.recipe import Recipe

#: What alpha is chosen from: of sums of task vectors, and of what is left of them by masks.
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.3)
LARGE = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)
#: Results of several families stand side by side, by the names of their suites.
SUITE = "several suites"
#: Numbers of tasks that are looked at. (The first eight tasks of text20 are those of text8.)
SIZES = {"text20": (14, 20), "wordnet200": (10, 50)}
OTHERS = (1, 2, 4, 8)
#: What alpha is chosen for, and from which list.
CASES: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    ("task_arithmetic", {}, ALPHAS),
    ("breadcrumbs", {"beta": 0.85, "gamma": 0.993}, LARGE),
    ("breadcrumbs", {"beta": 0.9, "gamma": 0.99}, LARGE),
    ("ties", {"density": 0.2}, LARGE),
    ("consensus", {"k": 2, "on": "sum"}, ALPHAS),
    ("dare_linear", {"p": 0.9}, ALPHAS),
]
#: The other methods whose default alpha is auto, and two more that take it; at one size. (Not cabs,
#: where what the rule finds, 1.01, is 2.1 points worse than 0.5 to 0.7: it does not take auto.)
MORE: list[tuple[str, dict[str, Any], tuple[float, ...]]] = [
    ("bottom_masking", {"density": 0.2}, LARGE),
    ("top_masking", {"outliers": 0.01}, ALPHAS),
    ("random_sparsed", {"density": 0.5}, (0.5, 1.0, 2.0, 3.0)),
    ("magnitude", {"density": 0.2}, LARGE),
    ("dare_ties", {"p": 0.9}, ALPHAS),
    ("della", {}, ALPHAS),
    ("della_linear", {}, ALPHAS),
    ("breadcrumbs_ties", {"beta": 0.85, "gamma": 0.993}, LARGE),
    ("tatr", {}, ALPHAS),
    ("pcb", {}, (0.5, 0.8, 1.0, 1.2, 1.5)),
    ("localize_and_stitch", {}, LARGE),
]
MORE_AT = 8
THE_REST = "other methods"


def measure(
    family: Family, methods: Sequence[str] = (), numbers: Sequence[int] = ()
) -> dict[str, Any]:
    """Return a row for each case and number of tasks: both alphas and what they score on test.

    methods, numbers (of tasks): these alone, all unless told. values: what every alpha scores on
    validation rows, by alpha and ``auto``.
    """
    rows = []
    for case in cases(family, methods, numbers or sizes(family)):
        recipes = [case.recipe(family, alpha) for alpha in (*case.alphas, case.auto)]
        tasks = [case.tasks] * len(recipes)
        *tried, last = family.scores(recipes, "validation", tasks, case.method)
        names = [*map(str, case.alphas), "auto"]
        values = [round(one.mean, 5) for one in (*tried, last)]
        best = max(tried, key=lambda one: one.mean).recipe
        chosen, auto = family.scores([best, last.recipe], "test", [case.tasks] * 2)
        rows.append(
            {
                "tasks": len(case.tasks),
                "method": case.method,
                "parameters": case.values,
                "chosen": best.parameters["alpha"],
                "chosen test": round(chosen.mean, 5),
                "auto": case.auto,
                "auto test": round(auto.mean, 5),
                "values": dict(zip(names, values, strict=True)),
            }
        )
        say(str(rows[-1]))
    return {family.name: rows}


@dataclass(frozen=True)
class Case:
    """A method with its values, for some tasks. alphas: to choose from; auto: what auto picks."""

    tasks: list[str]
    method: str
    values: dict[str, Any]
    alphas: tuple[float, ...]
    auto: float

    def recipe(self, family: Family, alpha: float) -> Recipe:
        return family.recipe(self.method, self.tasks, **self.values, alpha=alpha)


def cases(family: Family, methods: Sequence[str], numbers: Sequence[int]) -> Iterator[Case]:
    """Yield every case of some methods, of all if there are none, for every number of tasks."""
    for size in numbers:
        for method, values, alphas in CASES + (MORE if size == MORE_AT else []):
            if methods and method not in methods:
                continue
            if method == "consensus" and size < 4:
                continue  # of few masks, few or none agree in an entry
            tasks = family.tasks[:size]
            with opening.opened(family.recipe(method, tasks, **values, alpha="auto")) as plan:
                auto = calibration.fixed(plan, threads=2).recipe.parameters["alpha"]
            yield Case(tasks, method, values, alphas, auto)


def sizes(family: Family) -> list[int]:
    """Return the numbers of tasks that are looked at."""
    found = SIZES.get(family.suite.name, OTHERS)
    return [size for size in found if size <= len(family.tasks)]


def losses(found: dict[str, Any]) -> dict[tuple[str, int, str], list[float]]:
    """Return (suite, tasks, case) -> what auto gains (below 0: loses), by seed."""
    result: dict[tuple[str, int, str], list[float]] = {}
    for seed in by_seed(found):
        for suite, rows in seed.items():
            for row in rows:
                tails = ", ".join(f"{key} {value}" for key, value in row["parameters"].items())
                case = f"{NAMES.get(row['method'], row['method'])} {tails}".strip()
                key = (suite, row["tasks"], case)
                result.setdefault(key, []).append(row["auto test"] - row["chosen test"])
    return result


def table(found: dict[str, Any]) -> str:
    """Return what `alpha: auto` loses, and what all settings do that nobody chose."""
    gains = losses(found)
    columns = list(dict.fromkeys((suite, size) for suite, size, _ in gains))
    rows = []
    for case in dict.fromkeys(case for _, _, case in gains):
        cells = [gains.get((*column, case)) for column in columns]
        shown = [f"{100 * fmean(c):+.1f}" if c else "" for c in cells]
        rows.append([case, *shown])
    head = [f"{suite}, {size} tasks" for suite, size in columns]
    worst = min(gains, key=lambda key: fmean(gains[key]))
    mean = fmean(gains[worst])
    text = f"At worst, mean over seeds: {100 * mean:+.2f} points ({worst[2]}, {worst[1]} tasks)."
    found_auto = f"{markdown(['points by which auto differs', *head], rows)}\n\n{text}"
    return "\n\n".join(filter(None, (found_auto, defaults.table(found))))


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw what auto scores against what the chosen alpha does, a point for each case and seed.

    And, in another figure, what settings lose.
    """
    defaults.draw(found, folder)
    with drawn(folder / "alpha.svg", 4.2, 4.0) as (_, axis):
        rows = [row for s in by_seed(found) for mine in s.values() for row in mine]
        groups = [row["method"] if row["method"] in COLOURS else THE_REST for row in rows]
        for name, colour in {**COLOURS, THE_REST: "#CCCCCC"}.items():
            if mine := [row for row, group in zip(rows, groups, strict=True) if group == name]:
                axis.scatter(
                    [100 * row["chosen test"] for row in mine],
                    [100 * row["auto test"] for row in mine],
                    s=12,
                    alpha=0.7,
                    color=colour,
                    label=NAMES.get(name, name),
                    zorder=1 if name == THE_REST else 2,
                )
        ends = [100 * row[key] for row in rows for key in ("chosen test", "auto test")]
        axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#999999", linewidth=0.8)
        axis.set_xlabel("alpha chosen on validation rows: normalised accuracy, %")
        axis.set_ylabel("alpha: auto")
        axis.legend(fontsize=7)
