"""Scores of many models: several processes of one thread each, and rows that are kept.

Nothing is computed twice: a row is found again by the hash of the weights, of the head, of the
rows and the precision. Models that are recipes are merged in memory, in the process that scores
them; no file is written. Rows are kept by this process alone, wherever they were computed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from breadcrumbs.errors import ScoreError
from breadcrumbs.evaluate.corrections import heads as corrections
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import Key, Results, Row
from breadcrumbs.evaluate.scoring import heads, worker
from breadcrumbs.evaluate.scoring.keys import Keys, label
from breadcrumbs.evaluate.scoring.settings import Corrected, Settings, Spec
from breadcrumbs.evaluate.scoring.worker import Job, Scored, Setup
from breadcrumbs.merging import executors
from breadcrumbs.merging.executors import Executor, Unit, machines, values
from breadcrumbs.plan.recipe import Recipe

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite

#: What processes import: once, by the one that all others are forked from.
NEEDED = ["torch", worker.__name__]
#: Packages whose versions scores depend on.
PACKAGES = ("torch", "transformers", "tokenizers")
SCORE = Unit("score", "Give fewer --workers; what was scored is kept.", error=ScoreError)


class Pool:
    """Processes that score models on the tasks of a suite. A context manager.

    They start when something is to be computed. A search hands in ``suite.tuning()``, and the
    processes then have no way to test rows either.
    """

    def __init__(self, suite: Suite, settings: Settings):
        from breadcrumbs.modules import devices

        devices.require_torch()
        where = devices.device(settings.device)
        precision = devices.precision(settings.precision, where)
        self.suite, self.settings = suite, replace(settings, precision=precision, device=str(where))
        self.keys = Keys(suite, precision)
        self.results = Results(settings.results or ":memory:")
        self._gpus = int(where.type != "cpu")
        self._executor: Executor | None = None
        self._setup = Setup(secrets.token_hex(8), suite, self.settings)
        self._open = contextlib.ExitStack()
        #: Heads that were made where their cache may be another one's.
        self._made: set[str] = set()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()  # nothing is lost: rows are kept as they are found
        self.results.__exit__(*exc)

    @property
    def workers(self) -> int:
        """How many models are scored at once."""
        where = self.settings.on and executors.named(self.settings.on)
        if isinstance(where, int):
            return where
        if self.settings.on is not None:
            return self._elsewhere().slots
        return self.settings.workers or (1 if self._gpus else os.cpu_count() or 1)

    def score(
        self, models: Sequence[tuple[Spec, Sequence[str]]], split: Split
    ) -> Iterator[tuple[int, list[Row]]]:
        """Yield (number of the model, rows) as they come, in parts where models are few.

        models: what to score, and the names of the tasks to score it on.
        """
        left: list[tuple[int, Spec, list[str]]] = []
        for number, (spec, names) in enumerate(models):
            known = self._known(spec, names, split)
            if known:
                yield number, known
            missing = [name for name in names if name not in {row.task for row in known}]
            if missing:
                left.append((number, spec, missing))
        if not left:
            return
        self._make_heads(sorted({name for _, _, names in left for name in names}))
        apart = len(left) < 2 * self.workers
        todo = [
            (number, spec, group)
            for number, spec, names in left
            for group in ([[name] for name in names] if apart else [names])
        ]
        for known in (True, False):
            lost: list[tuple[int, Spec, list[str]]] = []
            jobs = (self._job(number, spec, names, split, known) for number, spec, names in todo)
            for job, rows in self._each(jobs):
                if rows:
                    yield job.number, rows
                gone = [name for name in job.tasks if name not in {row.task for row in rows}]
                if gone:  # they were in the file, and are not any more
                    assert job.spec is not None
                    lost.append((job.number, job.spec, gone))
            todo = lost

    def own(self, names: Sequence[str], split: Split) -> list[Row]:
        """Return the rows of the fine-tuned models of tasks, each on its own task."""
        mine = {name: self.suite.task(name).finetuned for name in names}
        jobs = [(path, [name]) for name, path in mine.items() if path is not None]
        return [row for _, rows in self.score(jobs, split) for row in rows]

    def _known(self, spec: Spec, names: Sequence[str], split: Split) -> list[Row]:
        """Return the rows that are there of a model on disk; one to be merged has no hash yet."""
        plain = spec.model if isinstance(spec, Corrected) else spec
        if isinstance(plain, Recipe):
            return []
        model, keys = self.keys.of(plain), self.keys
        heads = keys.heads(spec, model, names)
        found = (
            self.results.recall(
                keys.key(model, name, split, heads), **keys.facts(spec, name, split, heads)
            )
            for name in names
        )
        return [row for row in found if row is not None]

    def _job(self, number: int, spec: Spec, names: Sequence[str], split: Split, known: bool) -> Job:
        """Return what is to be done for a model. known: whether rows that are there are taken."""
        plain, file = (spec.model, [spec.heads]) if isinstance(spec, Corrected) else (spec, [])
        if not isinstance(plain, Recipe):
            return Job(tuple(names), number, spec, split, _there([plain, *file]))
        before = {}
        if known:
            by = corrections.load(file[0]) if file else None
            for name in names:
                models = self.results.models(self.keys.key("", name, split, by))
                before[name] = frozenset(map(worker.beginning, models))
        here = _there([plain.base, *(model.path for model in plain.models), *file])
        return Job(tuple(names), number, spec, split, here, before)

    def _make_heads(self, names: Sequence[str]) -> None:
        """Make the heads that are not in the cache, each in one process, before all need them."""
        cache = self.settings.cache
        missing = [name for name in names if not heads.exists(cache, self.keys.head(name))]
        missing = [name for name in missing if name not in self._made]
        if cache is not None and len(missing) > 1:
            for _ in self._each(Job((name,)) for name in missing):
                pass
            self._made |= set(missing)

    def _each(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, list[Row]]]:
        """Yield jobs with their rows, which are kept as they come."""
        executor, kept = self._elsewhere(), dict[tuple[int, str], Row | None]()

        def keep(job: Job, one: Scored) -> None:
            place = job.number, one.key.task
            if place not in kept:
                kept[place] = self._row(job, one)

        for job, found in values(
            executor.each(partial(worker.work, self._setup), jobs, SCORE, keep)
        ):
            for one in found:
                keep(job, one)
            rows = [kept.pop((job.number, one.key.task)) for one in found]
            yield job, [row for row in rows if row is not None]

    def _elsewhere(self) -> Executor:
        """Return what calls the processes, which is opened when it is first asked for."""
        if self._executor is None:
            on = self.settings.on or f"processes:{self.workers}"
            self._executor = self._open.enter_context(
                executors.opened(on, needed=NEEDED, gpus=self._gpus, retries=self.settings.retries)
            )
            if self._executor.here:
                return self._executor
            needs = machines.needs(
                _there([str(self.suite.path or ""), self.suite.base]),
                plugins=self.settings.plugins,
                packages=PACKAGES,
                storage="the suite and its models",
            )
            self._setup = replace(self._setup, needs=needs)
            self._executor.everywhere(machines.check, needs, SCORE)
        return self._executor

    def _row(self, job: Job, scored: Scored) -> Row | None:
        """Return the row of a score, and keep it; None for one that was known and is gone."""
        assert job.spec is not None
        key, spec, keys = scored.key, job.spec, self.keys
        plain = spec.model if isinstance(spec, Corrected) else spec
        model = key.model if isinstance(plain, Recipe) else keys.of(plain)
        by = keys.heads(spec, key.model, [key.task])
        _check_same(key, keys.key(model, key.task, job.split, by), label(plain))
        facts = keys.facts(spec, key.task, job.split, by)
        if scored.value is None:
            return self.results.recall(key, **facts)
        row = Row(
            **asdict(key),
            **facts,
            value=scored.value,
            correct=scored.correct,
            items=scored.items,
            stderr=scored.stderr,
            hits=scored.hits,
            seconds=scored.seconds,
        )
        self.results.add(row)
        return row


def _check_same(theirs: Key, ours: Key, called: str) -> None:
    """Raise ScoreError where a worker scored something else than was asked for."""
    if theirs == ours:
        return
    mine, other = asdict(ours), asdict(theirs)
    what = next(name for name in mine if mine[name] != other[name])
    raise ScoreError(
        f"{called} on {ours.task}: a worker has another {what} ({other[what][:8]}) than there is"
        f" here ({mine[what][:8]}). Let nothing write to models and data, and give all machines"
        " the same files."
    )


def _there(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the paths that are of this machine: all else is the hub's, or at a URL."""
    return tuple(os.path.abspath(path) for path in paths if path and Path(path).exists())
