"""The demo's family as the figures take a family: six tasks of images, which its program scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from types import SimpleNamespace, TracebackType
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.demo.model import accuracy, load_family
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.plan.recipe import Model, Recipe


@dataclass(frozen=True)
class Scored:
    """As `experiments.paper.family.Scored`, without rows."""

    recipe: Recipe
    values: Mapping[str, float]
    normalised: Mapping[str, float]

    @property
    def mean(self) -> float:
        """The mean over tasks, normalised."""
        return fmean(self.normalised.values())

    @property
    def raw(self) -> float:
        """The mean over tasks, as it is."""
        return fmean(self.values.values())


class Demo:
    """The family of `breadcrumbs demo`, with what the table asks of a `family.Family`."""

    def __init__(self) -> None:
        self.seed, self.name = 0, "demo"
        found = load_family()
        self.tasks = list(found.tasks)
        self._models = {task: str(path) for task, path in found.finetuned.items()}
        self.suite = SimpleNamespace(name="demo", base=str(found.base))
        self._sweep = Sweep(self.suite.base)
        self._own: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Demo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sweep.close()

    def recipe(self, method: str, tasks: Sequence[str] | None = None, **parameters: Any) -> Recipe:
        """Return the recipe that merges the fine-tunings of tasks, all unless told."""
        models = tuple(Model(self._models[name], name=name) for name in tasks or self.tasks)
        return Recipe(self.suite.base, models, method, parameters)

    def own(self, split: Split) -> dict[str, float]:
        """Return what each fine-tuned model scores on its own task."""
        if split not in self._own:
            self._own[split] = {
                task: accuracy(dict(checkpoint.open(path)), task, _split(split))
                for task, path in self._models.items()
            }
        return self._own[split]

    def base(self, split: Split) -> dict[str, float]:
        """Return what the base scores on each task."""
        weights = dict(checkpoint.open(self.suite.base))
        return {task: accuracy(weights, task, _split(split)) for task in self.tasks}

    def scores(
        self,
        recipes: Sequence[Recipe],
        split: Split,
        tasks: Sequence[Sequence[str]] | None = None,
        saying: str = "",
    ) -> list[Scored]:
        """Return the scores of recipes. tasks: those of each recipe; all unless told."""
        own, result = self.own(split), []
        for recipe, mine in zip(recipes, tasks or [self.tasks] * len(recipes), strict=True):
            weights = self._sweep.merged(recipe)
            values = {task: accuracy(weights, task, _split(split)) for task in mine}
            ratios = {task: value / own[task] for task, value in values.items()}
            result.append(Scored(recipe, values, ratios))
        return result


def _split(split: Split) -> Any:
    return "validation" if split == "validation" else "test"
