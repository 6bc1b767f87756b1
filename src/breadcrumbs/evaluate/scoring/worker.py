"""What one process of a pool does: keep a module, and score what it is handed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import Checkpoint
from breadcrumbs.checkpoint.hashing import model_hash, stamp
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import Results, Row
from breadcrumbs.evaluate.scoring.scoring import Scorer
from breadcrumbs.evaluate.scoring.settings import Corrected
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    from breadcrumbs.evaluate.corrections.heads import Heads
    from breadcrumbs.evaluate.routing.router import Router
    from breadcrumbs.evaluate.scoring.settings import Settings, Spec
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
        self._now: object = None
        self._state: Mapping[str, Any] = {}
        self._hash = ""
        self._opened: Checkpoint | None = None
        self._sweep = Sweep(suite.base)

    def make_head(self, name: str) -> str:
        """Make the head of a task, or find that it is there."""
        self.scorer.head(self.suite.task(name))
        return name

    def score(self, spec: Spec, tasks: Sequence[str], split: Split) -> list[Row]:
        """Return the rows of a model, those that are known from before included."""
        self._take(spec.model if isinstance(spec, Corrected) else spec)
        heads = self.scorer.keys.heads(spec, self._hash, tasks)
        return [self._row(spec, name, split, heads) for name in tasks]

    def _take(self, spec: str | Recipe) -> None:
        """Make ``spec`` the model that is scored next: open it, or merge it."""
        now = spec if isinstance(spec, Recipe) else (spec, stamp(spec))
        if now == self._now:
            return
        self._now = None
        if isinstance(spec, Recipe):
            # In the base's module, to which its tokenizer talks: of other tokens nothing is asked.
            mine = replace(spec, vocabulary="base", pad_to=None, tokens={}, tokenizer=None)
            self._state = self._sweep.merged(mine)
        else:
            if self._opened is not None:
                self._opened.close()
            self._state = self._opened = view.open_model(self.suite.base, spec)
        self._hash = model_hash(self._state)
        self._now = now

    def _row(self, spec: Spec, name: str, split: Split, heads: Heads | Router | None) -> Row:
        keys = self.scorer.keys
        key = keys.key(self._hash, name, split, heads)
        facts = keys.facts(spec, name, split, heads)
        row = self.results.recall(key, **facts)  # of this model by whatever name
        if row is not None:
            return row
        task = self.suite.task(name)
        score = self.scorer.score(task, split, self._state, self._hash, heads)
        row = Row(
            **asdict(key),
            **facts,
            value=score.value,
            correct=score.correct,
            items=score.items,
            stderr=score.stderr,
            hits=np.packbits(score.hits).tobytes(),
            seconds=score.seconds,
        )
        self.results.add(row)
        return row
