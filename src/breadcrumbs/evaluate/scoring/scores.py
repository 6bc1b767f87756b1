"""Scores of models beside those of their base and of the fine-tuned ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import BASE, FINETUNED, Results, Row, refer
from breadcrumbs.evaluate.scoring.pool import Pool
from breadcrumbs.evaluate.scoring.settings import Corrected, Settings, Spec
from breadcrumbs.plan import recipe as recipes

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite

#: Called with the number of scores done, of all, and what is being done.
Progress = Callable[[int, int, str], None]


def of(
    suite: Suite,
    models: Sequence[Spec],
    settings: Settings,
    *,
    split: Split = "test",
    tasks: Sequence[str] = (),
    alone: bool = False,
    heads: str | None = None,
    router: str | None = None,
    head_given: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> list[Row]:
    """Return the rows of models on the tasks of a suite: task by task, model by model.

    models: paths, hub ids, recipes or paths of recipes, which are merged in memory. tasks: names;
    all unless told. alone: leave out the base and the fine-tuned models, which are scored on their
    own tasks and make accuracies comparable. heads: a file of corrections; each model is scored
    with it too, and has to be the one that they were learned behind. router: a router's file, of
    which the same holds. head_given: score its rows with the heads of their own tasks, as published
    results are, too.
    """
    chosen = [suite.task(name) for name in dict.fromkeys(tasks)] or list(suite.tasks)
    names = [task.name for task in chosen]
    specs = [read(model) for model in models]
    labels = [model if isinstance(model, str) else "" for model in models]
    plain = [spec.model if isinstance(spec, Corrected) else spec for spec in specs]
    given = [(heads, False), (router, False), (router if head_given else None, True)]
    for path, head in [(path, head) for path, head in given if path is not None]:
        if not plain:
            raise SuiteError(f"{path}: belongs to a model. Name the one it was learned behind.")
        specs += [Corrected(spec, os.path.abspath(path), head) for spec in plain]
        labels += ["" for _ in plain]
    jobs: list[tuple[str, Spec, list[str]]] = [
        (label, spec, names) for label, spec in zip(labels, specs, strict=True)
    ]
    if not alone:
        own = [(FINETUNED, t.finetuned, [t.name]) for t in chosen if t.finetuned is not None]
        jobs = [(BASE, suite.base, names), *own, *jobs]
    total, done = sum(len(mine) for _, _, mine in jobs), 0
    found: dict[tuple[int, str], Row] = {}
    with Pool(suite, settings) as pool:
        progress(0, total, "heads")
        for number, rows in pool.score([(spec, mine) for _, spec, mine in jobs], split):
            for row in rows:
                found[number, row.task] = replace(row, label=jobs[number][0] or row.label)
                done += 1
                progress(done, total, f"{found[number, row.task].label} on {row.task}")
    order = [(number, name) for number, (_, _, mine) in enumerate(jobs) for name in mine]
    rows = refer([found[key] for key in order], found.values())
    if settings.results is None:
        return rows
    with Results(settings.results) as results:
        return results.referenced(rows)


def read(model: Spec) -> Spec:
    """Return a model to score: the recipe, where it is the path of one."""
    if isinstance(model, str) and Path(model).suffix in (".yaml", ".yml"):
        return recipes.load(model)
    return model
