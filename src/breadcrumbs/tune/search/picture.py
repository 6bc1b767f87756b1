"""What stands on the page of a search: its trials, and what they say of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from breadcrumbs.evaluate.results import sweeps
from breadcrumbs.evaluate.results.sweeps import Point
from breadcrumbs.pages.page import Page, Section, Table
from breadcrumbs.plan.recipe import Recipe, to_yaml
from breadcrumbs.tune.search.trials import Found, Trial

#: Trials of the table of the best.
SHOWN = 20


def of(found: Found, best: Recipe, suite: str, tested: Any = None) -> Page:
    """Return the page of a search. best: the recipe that was chosen. tested: `suites.Tested`."""
    ranked = sorted(found.whole, key=lambda trial: (-trial.score, trial.number))
    top, score = ranked[0], f"score ({found.objective})"
    tiles = [("trials", str(len(found.trials))), ("best score", f"{top.score:.4f}")]
    if tested is not None:
        tiles.append(("test accuracy", f"{tested.raw.value:.1%} ± {tested.raw.stderr:.1%}"))
    tasks = list(top.values)
    rows = [
        (str(t.number), round(t.score, 4), *(f"{t.values[task]:.1%}" for task in tasks), _said(t))
        for t in ranked[:SHOWN]
    ]
    table = Table(("trial", score, *tasks, "setting"), rows, f"The best {len(rows)} trials")
    figures = sweeps.figures(points(found.whole), score)
    sections = [
        Section("What was found", _FOUND, tables=[table]),
        Section("How the search went", figures=figures),
    ]
    if tested is not None:
        body = [(r.task, f"{r.value:.1%}", f"{r.stderr:.1%}") for r in tested.rows]
        test = Table(("task", "test accuracy", "standard error"), body)
        sections.append(Section("On test rows", "Scored once, at the end.", tables=[test]))
    sections.append(Section("Recipe", "The best point, for breadcrumbs merge.", code=to_yaml(best)))
    of = "one task" if len(tasks) == 1 else f"{len(tasks)} tasks"
    lead = f"{len(found.trials)} settings scored on the validation rows of {of}."
    notes = [f"{found.left_out} points of the grid are impossible"] if found.left_out else []
    return Page(f"Search on {suite}", "search", lead, tiles, sections, notes=notes)


def points(trials: Sequence[Trial]) -> list[Point]:
    """Return trials as `sweeps` takes them, normalised values where all are known."""
    made = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        known = {task: v for task, v in trial.normalised.items() if v is not None}
        values = known if len(known) == len(trial.values) else trial.values
        label = f"{trial.number}: {_said(trial)}"
        made.append(Point(label, sweeps.numbered(trial.point), trial.score, values))
    return made


def _said(trial: Trial) -> str:
    values = ", ".join(f"{key} {value}" for key, value in trial.point.items() if key != "method")
    return f"{trial.point['method']} {values}".strip()


_FOUND = (
    "Each trial is one method with one setting of its parameters, merged in memory and scored on"
    " validation rows; no test row was read to choose among them."
)
