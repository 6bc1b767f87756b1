"""What one process that scores does: keep a module, and score what it is handed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import Checkpoint
from breadcrumbs.checkpoint.hashing import model_hash, stamp
from breadcrumbs.errors import OutputError
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import Key
from breadcrumbs.evaluate.scoring.scoring import Scorer
from breadcrumbs.evaluate.scoring.settings import Corrected
from breadcrumbs.merging.executors import machines
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    from breadcrumbs.evaluate.corrections.heads import Heads
    from breadcrumbs.evaluate.routing.router import Router
    from breadcrumbs.evaluate.scoring.settings import Settings, Spec
    from breadcrumbs.evaluate.suite import Suite


@dataclass(frozen=True)
class Job:
    """A model to score on some tasks, or, without one, heads of these to make.

    number: what the model is for who asks. here: the paths of it that must be there. known: by
    task, beginnings of the hashes of models whose scores are there.
    """

    tasks: tuple[str, ...]
    number: int = 0
    spec: Spec | None = None
    split: Split = "validation"
    here: tuple[str, ...] = ()
    known: Mapping[str, frozenset[bytes]] | None = None


@dataclass(frozen=True)
class Scored:
    """A score, and what it was computed of; without a value one that is known by that."""

    key: Key
    value: float | None = None
    correct: int = 0
    items: int = 0
    stderr: float = 0.0
    hits: bytes = b""
    seconds: float = 0.0


#: Bytes of a hash by which a model is told to be known: what is found by them is looked at again.
KNOWN = 8


def beginning(model: str) -> bytes:
    """Return what a hash is known by."""
    return bytes.fromhex(model)[:KNOWN]


@dataclass(frozen=True)
class Setup:
    """What a process scores with. key: of no other one. needs: what its machine must have, if it
    is another one."""

    key: str
    suite: Suite
    settings: Settings
    needs: machines.Needs | None = None


class Worker:
    """A process's scorer, and its last model."""

    def __init__(self, suite: Suite, settings: Settings):
        self.suite = suite
        self.scorer = Scorer(
            suite,
            device=settings.device,
            precision=settings.precision,
            cache=settings.cache,
        )
        self._now: object = None
        self._state: Mapping[str, Any] = {}
        self._hash = ""
        self._opened: Checkpoint | None = None
        self._sweep = Sweep(suite.base)

    def make_head(self, name: str) -> None:
        """Make the head of a task, or find that it is there."""
        self.scorer.head(self.suite.task(name))

    def score(self, job: Job, tell: Callable[[Scored], None]) -> list[Scored]:
        """Return the scores of a model, and of those that are known what they are known by.

        tell: is called with each as it is there.
        """
        spec = job.spec
        assert spec is not None
        self._take(spec.model if isinstance(spec, Corrected) else spec)
        heads = self.scorer.keys.heads(spec, self._hash, job.tasks)
        found = []
        for name in job.tasks:
            found.append(self._scored(job, name, heads))
            tell(found[-1])
        return found

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

    def _scored(self, job: Job, name: str, heads: Heads | Router | None) -> Scored:
        key = self.scorer.keys.key(self._hash, name, job.split, heads)
        if beginning(self._hash) in (job.known or {}).get(name, ()):
            return Scored(key)
        task = self.suite.task(name)
        score = self.scorer.score(task, job.split, self._state, self._hash, heads)
        return Scored(
            key,
            score.value,
            score.correct,
            score.items,
            score.stderr,
            np.packbits(score.hits).tobytes(),
            score.seconds,
        )


#: What this process scores with, by its key.
_worker: tuple[str, Worker] | None = None


def work(setup: Setup, job: Job, tell: Callable[[Scored], None]) -> list[Scored]:
    """Do a job in this process, whose worker stays for the next one."""
    global _worker
    _check(setup, job)
    if _worker is None or _worker[0] != setup.key:
        import torch

        from breadcrumbs.methods.registry import load_plugin

        torch.set_num_threads(1)
        for plugin in setup.settings.plugins:
            load_plugin(plugin)
        _worker = None
        _worker = setup.key, Worker(setup.suite, setup.settings)
    worker = _worker[1]
    if job.spec is None:
        for name in job.tasks:
            worker.make_head(name)
        return []
    return worker.score(job, tell)


def _check(setup: Setup, job: Job) -> None:
    """Raise OutputError on a machine that lacks what a job needs."""
    if setup.needs is None:
        return
    machines.check(setup.needs)
    for path in job.here:
        if not Path(path).exists():
            raise OutputError(
                f"{socket.gethostname()}: does not see {path}, which is here. Give models on"
                " storage that all machines share."
            )
