"""What one process of a pool does: keep a module, and score what it is handed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import breadcrumbs
from breadcrumbs.evaluate.keys import digest
from breadcrumbs.evaluate.results import Key, Results, Row, model_hash
from breadcrumbs.evaluate.scoring import Score, Scorer
from breadcrumbs.evaluate.task import Split
from breadcrumbs.recipe import Recipe, to_mapping
from breadcrumbs.sweep import Sweep

if TYPE_CHECKING:
    from breadcrumbs.evaluate.pool import Settings, Spec
    from breadcrumbs.evaluate.suite import Suite


class Worker:
    """A process's scorer, its last model, and the rows that were kept."""

    def __init__(self, suite: Suite, settings: Settings):
        self.suite = suite
        self.scorer = Scorer(
            suite,
            device=settings.device,
            precision=settings.precision,
            cache=settings.cache,
        )
        self.results = Results(settings.results or ":memory:")
        self._spec: Spec | None = None
        self._state: Mapping[str, Any] = {}
        self._hash = ""
        self._sweep = Sweep(suite.base)

    def make_head(self, name: str) -> str:
        """Make the head of a task, or find that it is there."""
        self.scorer.head(self.suite.task(name))
        return name

    def score(self, spec: Spec, tasks: Sequence[str], split: Split) -> list[Row]:
        """Return the rows of a model, those that are known from before included."""
        self._take(spec)
        return [self._row(spec, name, split) for name in tasks]

    def _take(self, spec: Spec) -> None:
        """Make ``spec`` the model that is scored next: open it, or merge it."""
        if spec == self._spec:
            return
        self._spec = None
        if isinstance(spec, Recipe):
            self._state = self._sweep.merged(spec)
        else:
            self._state = breadcrumbs.open(spec)
        self._hash = model_hash(self._state)
        self._spec = spec

    def _row(self, spec: Spec, name: str, split: Split) -> Row:
        key = self.scorer.keys.key(self._hash, name, split)
        found = self.results.find(**asdict(key))
        if found is not None:
            return replace(found, label=label(spec), suite=self.suite.name)
        score = self.scorer.score(self.suite.task(name), split, self._state, self._hash)
        row = self._made(key, score, spec)
        self.results.add(row)
        return row

    def _made(self, key: Key, score: Score, spec: Spec) -> Row:
        recipe = to_mapping(spec, complete=True) if isinstance(spec, Recipe) else None
        return Row(
            **asdict(key),
            label=label(spec),
            value=score.value,
            correct=score.correct,
            items=score.items,
            stderr=score.stderr,
            hits=np.packbits(score.hits).tobytes(),
            suite=self.suite.name,
            finetuned=self.scorer.keys.finetuned(score.task),
            recipe=None if recipe is None else json.dumps(recipe),
            recipe_hash=None if recipe is None else digest(recipe),
            seconds=score.seconds,
        )


def label(spec: Spec) -> str:
    """Return what a model is called: its path, or its method and number of models."""
    if isinstance(spec, Recipe):
        values = ", ".join(f"{key} {value}" for key, value in spec.parameters.items())
        return f"{spec.method} of {len(spec.models)}" + (f" ({values})" if values else "")
    return spec
