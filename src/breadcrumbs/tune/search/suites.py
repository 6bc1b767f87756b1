"""A suite as a search has it: recipes of its fine-tunings, and their scores on validation rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import SuiteError
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.tune.search import bound
from breadcrumbs.tune.search.raced import Anchored

if TYPE_CHECKING:
    from breadcrumbs.evaluate.results.results import Row
    from breadcrumbs.evaluate.results.standard_errors import Estimate
    from breadcrumbs.evaluate.scoring.settings import Settings
    from breadcrumbs.evaluate.suite import Suite
    from breadcrumbs.tune.search.trials import Found


def template(suite: Suite, names: Sequence[str]) -> Recipe:
    """Return a recipe of the base and the fine-tunings of those tasks; SuiteError lacks one."""
    models = []
    for name in names:
        path = suite.task(name).finetuned
        if path is None:
            raise SuiteError(
                f"suite {suite.name}: task {name!r} has no `finetuned`, so there is nothing to"
                " merge for it. Add it, or leave the task out with --task."
            )
        models.append(Model(path, name=name))
    return Recipe(suite.base, tuple(models))


class Validation:
    """Scores of recipes on the validation rows of tasks. A context: it has processes that score.

    suite: whole or not; test rows are shut here. share: of the rows of each task, what a race is
    about; ``race`` is to be given to the search then. seed: of the draw of these rows.
    """

    def __init__(
        self,
        suite: Suite,
        names: Sequence[str],
        settings: Settings,
        share: float | None = None,
        seed: int = 0,
    ):
        from breadcrumbs.evaluate.scoring.pool import Pool

        self.suite, self.names = suite.tuning(), list(names)
        self._own: list[Row] = []
        self.race: Anchored | None = None
        if share is not None:
            self.race = Anchored(self.suite, names, settings, share, seed)
            self.suite, self._own = self.race.suite, self.race.own
        self.pool = Pool(self.suite, settings)
        if self.race is not None:
            self.race.on(self.pool)

    def __enter__(self) -> Validation:
        self.pool.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.pool.__exit__(*error)

    def __call__(
        self, recipes: Sequence[Recipe]
    ) -> Iterator[tuple[Recipe, dict[str, float], dict[str, float | None]]]:
        """Yield each recipe with its values and normalised values by task, as they come."""
        from breadcrumbs.evaluate.results.results import refer

        self._own = self._own or self.pool.own(self.names, "validation")
        rows: dict[int, list[Row]] = {}
        jobs = [(recipe, self.names) for recipe in recipes]
        for number, some in self.pool.score(jobs, "validation"):
            mine = rows.setdefault(number, [])
            mine += refer(some, self._own)
            if len(mine) == len(self.names):
                values = {row.task: row.value for row in mine}
                yield recipes[number], values, {row.task: row.normalised for row in mine}


@dataclass(frozen=True)
class Tested:
    """The test scores of a recipe. others: labels and mean values of other recipes of the same
    models whose test scores are in the file of results too."""

    rows: list[Row]
    raw: Estimate
    normalised: Estimate | None
    others: list[tuple[str, float]]

    def to_mapping(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        return {
            "values": {row.task: row.value for row in self.rows},
            "raw": self.raw._asdict(),
            "normalised": None if self.normalised is None else self.normalised._asdict(),
            "others": [{"label": label, "raw": value} for label, value in self.others],
        }


def test(suite: Suite, made: Recipe, settings: Settings) -> Tested:
    """Return the scores of a recipe on the test rows of all of its tasks."""
    from breadcrumbs.evaluate.results.results import Results, refer
    from breadcrumbs.evaluate.results.standard_errors import Estimate, mean
    from breadcrumbs.evaluate.scoring.pool import Pool

    names = [model.name for model in made.models]
    with Pool(suite, settings) as pool:
        own = pool.own(names, "test")
        found = {row.task: row for _, rows in pool.score([(made, names)], "test") for row in rows}
    rows = refer([found[name] for name in names], own)
    ratios = [row.normalised_estimate for row in rows]
    known = [ratio for ratio in ratios if ratio is not None]
    others = []
    if settings.results is not None:
        with Results(settings.results) as results:
            others = _others(results.select(split="test", base=rows[0].base), rows[0])
    return Tested(
        rows,
        mean([Estimate(row.value, row.stderr) for row in rows]),
        mean(known) if len(known) == len(rows) else None,
        others,
    )


def _others(rows: Sequence[Row], mine: Row) -> list[tuple[str, float]]:
    """Return labels and mean values of other merges of the same models, in order of scoring."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.recipe is None or row.recipe_hash is None or row.recipe_hash == mine.recipe_hash:
            continue
        if _family(row.recipe) == _family(mine.recipe or "{}"):
            found.setdefault(row.recipe_hash, []).append(row)
    return [(m[0].label, sum(row.value for row in m) / len(m)) for m in found.values()]


def _family(recipe: str) -> Any:
    data: Mapping[str, Any] = json.loads(recipe)
    models = [m["model"] if isinstance(m, dict) else m for m in data.get("models", [])]
    return data.get("base"), models


def at_least(suite: Suite, found: Found, sampler: str) -> float | None:
    """Return what the chosen trial's mean accuracy is at least (`search.bound`).

    None where the sampler proposes by scores, or a task's metric is not accuracy.
    """
    names = list(found.best.values)
    tasks = [suite.task(name) for name in names]
    if sampler not in bound.FIXED or any(task.metric != "accuracy" for task in tasks):
        return None
    rows = {task.name: len(task.rows("validation")) for task in tasks}
    right = {name: round(found.best.values[name] * rows[name]) for name in names}
    return bound.lower(right, rows, len(found.trials))


def beside(made: Recipe, output: str | Path) -> Recipe:
    """Return a recipe whose paths inside the output's folder are relative to it."""
    folder = os.path.join(os.path.abspath(Path(output).parent), "")

    def short(path: str) -> str:
        return path.removeprefix(folder) if os.path.exists(path) else path

    models = tuple(replace(model, path=short(model.path)) for model in made.models)
    return replace(made, base=short(made.base), models=models)
