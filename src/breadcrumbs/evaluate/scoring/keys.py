"""What a score depends on, found without loading a model: the key of its row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import beside as files_beside
from breadcrumbs.checkpoint.hashing import model_hash, stamp
from breadcrumbs.evaluate import learned
from breadcrumbs.evaluate.corrections import heads
from breadcrumbs.evaluate.corrections.heads import Heads
from breadcrumbs.evaluate.data.drawn import keys_of
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import Key
from breadcrumbs.evaluate.routing import router as routers
from breadcrumbs.evaluate.routing.router import Router
from breadcrumbs.evaluate.scoring.settings import Corrected, Spec
from breadcrumbs.plan.recipe import Recipe, to_mapping
from breadcrumbs.taskfile import view
from breadcrumbs.version import __version__

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite


class Keys:
    """The keys of rows of a suite. precision: in which models compute.

    A hash is found once, and again where something wrote to the model.
    """

    def __init__(self, suite: Suite, precision: str):
        self.suite, self.precision = suite, precision
        self._hashes: dict[str, tuple[object, str]] = {}
        self._heads: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Return the hash of a model's weights."""
        now = stamp(path)
        before, found = self._hashes.get(path, (None, ""))
        if before != now:
            with view.open_model(self.suite.base, path) as model:
                found = model_hash(model)
            self._hashes[path] = now, found
        return found

    @cached_property
    def foundation(self) -> str:
        """A digest of the foundation, of the models it takes something from besides the base, and
        of what lies beside the weights of these and of the base: configuration, tokenizer, ..."""
        made = self.suite.foundation
        also = [[self.of(path), beside(path)] for path in getattr(made, "models", ())]
        return digest([made.kind, dict(made.settings), beside(self.suite.base), also])

    @property
    def base(self) -> str:
        """The hash of the base's weights."""
        return self.of(self.suite.base)

    def finetuned(self, task: str) -> str | None:
        """Return the hash of the model that was fine-tuned on a task, if there is one."""
        path = self.suite.task(task).finetuned
        return None if path is None else self.of(path)

    def head(self, task: str) -> str:
        """Return a digest of all that the head of a task is made of."""
        if task not in self._heads:
            mine, trains = self.suite.task(task), self.suite.foundation.trains_heads
            self._heads[task] = digest(
                {
                    "version": __version__,
                    "base": self.base,
                    "foundation": self.foundation,
                    "task": task,  # a foundation may ask for it
                    "labels": list(mine.labels),
                    "head": dict(mine.head),
                    "rows": mine.rows("train").digest if trains else None,
                    "precision": self.precision,
                }
            )
        return self._heads[task]

    def key(self, model: str, task: str, split: Split, heads: Heads | Router | None = None) -> Key:
        """Return the key of a row. model: the hash of its weights. heads: that correct it."""
        mine = self.suite.task(task)
        return Key(
            model=model,
            base=self.base,
            foundation=self.foundation,
            head=self.head(task),
            task=task,
            rows=mine.rows(split).digest,
            split=split,
            metric=mine.metric,
            precision=self.precision,
            correction="" if heads is None else heads.digest,
        )

    def heads(self, spec: Spec, model: str, tasks: Sequence[str]) -> Heads | Router | None:
        """Return what corrects or routes a model, if something does; SuiteError where it is of
        another.

        model: the hash of its weights. tasks: that they have to serve.
        """
        if not isinstance(spec, Corrected):
            return None
        routed = routers.is_router(spec.heads)
        found = routers.load(spec.heads) if routed else heads.load(spec.heads)
        if isinstance(found, Router):
            tasks = [*tasks, *found.tasks]  # a row may be sent to each
            found = replace(found, head_given=spec.head_given)
        found.check(model, self.base, self.foundation, label(spec.model))
        for name in dict.fromkeys(tasks):
            found.check_task(name, self.suite.task(name).labels)
        return found

    def of_search(self, tasks: Sequence[str]) -> dict[str, Any]:
        """Return what validation scores depend on besides the merge that is scored."""
        return {
            "foundation": self.foundation,
            "precision": self.precision,
            "base weights": self.base,
            "weights": {name: self.finetuned(name) for name in tasks},
            "rows": {name: self.suite.task(name).rows("validation").digest for name in tasks},
            "heads": {name: self.head(name) for name in tasks},
            "metrics": {name: self.suite.task(name).metric for name in tasks},
        }

    def facts(
        self, spec: Spec, task: str, split: Split, heads: Heads | Router | None = None
    ) -> dict[str, Any]:
        """Return what a row says besides of a model: what it is called, and was made from."""
        if isinstance(spec, Corrected):
            assert heads is not None
            plain = self.facts(spec.model, task, split)
            keys = keys_of(self.suite.task(task).rows(split))
            called = {"label": f"{plain['label']} + {heads.called}"}
            mine = heads.facts(task, split, keys)
            mine["transductive"] |= plain.get("transductive", False)  # of the model behind which
            return plain | called | mine
        seed = self.suite.seed
        facts = {"suite": self.suite.name, "finetuned": self.finetuned(task), "label": label(spec)}
        facts |= self._learned(spec, task, split)
        if not isinstance(spec, Recipe):
            return facts | {"recipe": None, "recipe_hash": None, "seed": seed}
        made = to_mapping(replace(spec, inputs=(), made_by=""), complete=True)
        seed = spec.seed if seed is None else seed
        return facts | {"recipe": json.dumps(made), "recipe_hash": digest(made), "seed": seed}

    def _learned(self, spec: str | Recipe, task: str, split: Split) -> dict[str, Any]:
        """Return what a row says of what a model, or numbers of a recipe, were learned from."""
        if isinstance(spec, Recipe):
            about = learned.of_recipe(spec)
        else:
            with checkpoint.open(spec) as model:
                about = learned.of(model.metadata, spec)
            about = learned.of_merged(spec) if about is None else about
        if about is None or task not in about["tasks"]:
            return {}
        keys = keys_of(self.suite.task(task).rows(split))
        return learned.facts(about["draw"], about["tasks"][task], split, keys)


def label(spec: str | Recipe) -> str:
    """Return what a model is called: its path, or its method, number of models and parameters."""
    if isinstance(spec, str):
        return spec
    values = ", ".join(f"{key} {value}" for key, value in spec.parameters.items())
    return f"{spec.method} of {len(spec.models)}" + (f" ({values})" if values else "")


def beside(path: str) -> str:
    """Return a digest of the files that lie beside a model's weights; the same for a bare file."""
    with checkpoint.open(path) as model:
        folder = model.folder
    names = files_beside.files(folder) if folder is not None else []
    return digest([[n, blake3((Path(folder or "") / n).read_bytes()).hexdigest()] for n in names])


def digest(data: Any) -> str:
    """Return the BLAKE3 of plain data."""
    return blake3(json.dumps(data, sort_keys=True).encode()).hexdigest()
