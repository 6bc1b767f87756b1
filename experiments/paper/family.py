"""A family of fine-tunings, at several seeds: recipes over it, and their scores."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import cache
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import Row
from breadcrumbs.evaluate.scoring.pool import Pool
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.evaluate.suite import Suite
from breadcrumbs.merging.adapting import is_adapter
from breadcrumbs.plan.recipe import Model, Recipe

#: What methods with data take of each model.
STATISTICS = {"fisher": "fisher.safetensors", "regmean": "gram.safetensors"}


@dataclass(frozen=True)
class Scored:
    """Scores of one recipe. values: by task. normalised: divided by those of the fine-tuned."""

    recipe: Recipe
    values: Mapping[str, float]
    normalised: Mapping[str, float]
    rows: Sequence[Row]

    @property
    def mean(self) -> float:
        """The mean over tasks, normalised."""
        return sum(self.normalised.values()) / len(self.normalised)

    @property
    def raw(self) -> float:
        """The mean over tasks, as it is."""
        return sum(self.values.values()) / len(self.values)


class Family:
    """The fine-tunings of a suite that one seed gave: ``FOLDER/seed-S/suite.yaml``.

    Or of a suite, by its file or name, that says which models were fine-tuned on its tasks; rows
    are then kept in ``NAME.sqlite`` where this runs. A context manager, which has the processes
    that score. rows: of each task so many are drawn, of the validation rows and of the test rows,
    for figures of very many points; all unless told.
    """

    def __init__(self, source: str | Path, seed: int, workers: int = 0, rows: int | None = None):
        self.seed = seed
        path = Path(source, f"seed-{seed}", "suite.yaml")
        whole = Path(source).is_dir()
        self.suite: Suite = suites.load(path if whole else source)
        results = Path(source, "results.sqlite") if whole else Path(f"{self.suite.name}.sqlite")
        if rows is not None:
            self.suite = suites.load(fewer(self.suite, rows, path.parent if whole else Path()))
        self.tasks = [task.name for task in self.suite.tasks]
        trained = all(task.finetuned and is_adapter(task.finetuned) for task in self.suite.tasks)
        few = f", {rows} rows a task" if rows is not None else ""
        #: Of the suite; that adapters were trained, and how many rows of each task are scored.
        self.name = self.suite.name + (" adapters" if trained else "") + few
        settings = Settings(results=str(results), workers=workers, cache=cache.folder())
        self.pool = Pool(self.suite, settings)

    def __enter__(self) -> Family:
        self.pool.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.pool.__exit__(kind, error, trace)

    def model(self, task: str) -> str:
        """Return the path of the model that was fine-tuned on a task."""
        found = self.suite.task(task).finetuned
        assert found is not None, task
        return found

    def nbytes(self, task: str) -> int:
        """Return the bytes of the weight files of the model that was fine-tuned on a task."""
        with checkpoint.open(self.model(task)) as model:
            return sum(file.stat().st_size for file in model.files)

    def recipe(self, method: str, tasks: Sequence[str] | None = None, **parameters: Any) -> Recipe:
        """Return the recipe that merges the fine-tunings of tasks, all unless told.

        Statistics are those that `experiments.paper.gather` wrote beside the models.
        """
        file = STATISTICS.get(method)
        models = tuple(
            Model(
                self.model(name),
                name=name,
                statistics=None if file is None else str(Path(self.model(name)) / file),
            )
            for name in tasks or self.tasks
        )
        return Recipe(self.suite.base, models, method, parameters)

    @functools.cache  # noqa: B019  a family lives as long as the program
    def own(self, split: Split) -> dict[str, float]:
        """Return what each fine-tuned model scores on its own task."""
        return {row.task: row.value for row in self.pool.own(self.tasks, split)}

    def base(self, split: Split) -> dict[str, float]:
        """Return what the base scores on each task."""
        jobs = [(self.suite.base, self.tasks)]
        return {row.task: row.value for _, rows in self.pool.score(jobs, split) for row in rows}

    def on(self, model: str, tasks: Sequence[str], split: Split = "test") -> dict[str, float]:
        """Return what a model that was written scores on some tasks, normalised."""
        own = self.own(split)
        found = self.pool.score([(model, tasks)], split)
        return {row.task: row.value / own[row.task] for _, rows in found for row in rows}

    def scores(
        self,
        recipes: Sequence[Recipe],
        split: Split,
        tasks: Sequence[Sequence[str]] | None = None,
        saying: str = "",
    ) -> list[Scored]:
        """Return the scores of recipes. tasks: those of each recipe; all unless told."""
        own = self.own(split)
        mine = tasks or [self.tasks] * len(recipes)
        rows: dict[int, dict[str, Row]] = {number: {} for number in range(len(recipes))}
        began = said = time.monotonic()
        done = 0
        jobs = list(zip(recipes, mine, strict=True))
        for number, found in self.pool.score(jobs, split):
            rows[number].update((row.task, row) for row in found)
            done += len(rows[number]) == len(mine[number])
            if time.monotonic() - said > 30:
                said = time.monotonic()
                say(f"{saying} {done} of {len(recipes)} in {said - began:.0f} s")
        result = []
        for number, recipe in enumerate(recipes):
            values = {name: rows[number][name].value for name in mine[number]}
            ratios = {name: value / own[name] for name, value in values.items()}
            ordered = [rows[number][name] for name in mine[number]]
            result.append(Scored(recipe, values, ratios, ordered))
        return result

    def best(self, recipes: Sequence[Recipe], saying: str = "") -> tuple[Scored, list[Scored]]:
        """Return the recipe that is best on validation rows, and all."""
        found = self.scores(recipes, "validation", saying=saying)
        return max(found, key=lambda one: one.mean), found


def seeds(source: str | Path) -> list[int]:
    """Return the seeds of a family: those of its folder; 0 for a suite."""
    found = [int(path.name[5:]) for path in Path(source).glob("seed-*") if path.is_dir()]
    return sorted(found) or [0]


def fewer(suite: Suite, rows: int, folder: Path) -> Path:
    """Write a suite with fewer rows to score to a folder; return its path."""
    entries = [{**entry, "splits": _fewer(entry, rows)} for entry in suite.declared["tasks"]]
    found = folder / f"{suite.name}-{rows}.yaml"
    replace(suite, declared={**suite.declared, "tasks": entries}).save(found)
    return found


def _fewer(entry: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return the splits of a task with ``rows`` rows drawn of each that is scored."""
    said = entry.get("splits", {})
    few: dict[str, Any] = {"train": said.get("train", "train")}
    for split in ("validation", "test"):
        part = said.get(split, split)
        few[split] = {"of": part if isinstance(part, str) else part["of"], "count": rows}
    return few


def grid(**values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return every combination of values, as parameters."""
    found: list[dict[str, Any]] = [{}]
    for name, options in values.items():
        found = [{**one, name: option} for one in found for option in options]
    return found


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)
