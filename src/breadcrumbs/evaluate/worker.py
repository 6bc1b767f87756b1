"""What one process of a pool does: keep a module, and score what it is handed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

import breadcrumbs
from breadcrumbs.evaluate.results import Results, Row, model_hash
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
        self._finetuned: dict[str, str] = {}

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
        task = self.suite.task(name)
        key = {
            "model": self._hash,
            "base": self.scorer.base_hash,
            "foundation": _digest([self.suite.foundation.kind, self.suite.foundation.settings]),
            "head": self.scorer.head_digest(task),
            "task": name,
            "rows": task.rows(split).digest,
            "split": split,
            "metric": task.metric,
            "precision": self.scorer.precision,
        }
        found = self.results.find(**key)
        if found is not None:
            return replace(found, label=label(spec), suite=self.suite.name)
        row = self._made(key, self.scorer.score(task, split, self._state, self._hash), spec)
        self.results.add(row)
        return row

    def _made(self, key: dict[str, Any], score: Score, spec: Spec) -> Row:
        recipe = to_mapping(spec, complete=True) if isinstance(spec, Recipe) else None
        return Row(
            **key,
            label=label(spec),
            value=score.value,
            correct=score.correct,
            items=score.items,
            stderr=score.stderr,
            hits=np.packbits(score.hits).tobytes(),
            suite=self.suite.name,
            finetuned=self._own(score.task),
            recipe=None if recipe is None else json.dumps(recipe),
            recipe_hash=None if recipe is None else _digest(recipe),
            seconds=score.seconds,
        )

    def _own(self, name: str) -> str | None:
        """Return the hash of the model that was fine-tuned on a task, if there is one."""
        path = self.suite.task(name).finetuned
        if path is None:
            return None
        if path not in self._finetuned:
            self._finetuned[path] = model_hash(path)
        return self._finetuned[path]


def label(spec: Spec) -> str:
    """Return what a model is called: its path, or its method and number of models."""
    if isinstance(spec, Recipe):
        values = ", ".join(f"{key} {value}" for key, value in spec.parameters.items())
        return f"{spec.method} of {len(spec.models)}" + (f" ({values})" if values else "")
    return spec


def _digest(data: Any) -> str:
    return blake3(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
