"""Scores of many models: several processes of one thread each, and rows that are kept.

Nothing is computed twice: a row is found again by the hash of the weights, of the head, of the
rows and the precision. Models that are recipes are merged in memory, in the process that scores
them; no file is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import ScoreError
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.results.results import Results, Row
from breadcrumbs.evaluate.scoring import heads, processes
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.evaluate.scoring.settings import Corrected, Settings, Spec
from breadcrumbs.plan.recipe import Recipe

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite


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
        self.workers = settings.workers or (1 if where.type != "cpu" else os.cpu_count() or 1)
        self.keys = Keys(suite, precision)
        self.results = Results(settings.results or ":memory:")
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.results.__exit__(*exc)
        if self._executor is None:
            return
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # nothing is lost: rows are kept as they are found
            process.terminate()

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
        self._make_heads(sorted({name for _, _, names in left for name in names}))
        apart = len(left) < 2 * self.workers
        jobs = [
            ("score", number, spec, group, split)
            for number, spec, names in left
            for group in ([[name] for name in names] if apart else [names])
        ]
        yield from self._each(jobs)

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

    def _make_heads(self, names: Sequence[str]) -> None:
        """Make the heads that are not in the cache, each in one process, before all need them."""
        cache = self.settings.cache
        missing = [name for name in names if not heads.exists(cache, self.keys.head(name))]
        if cache is not None and len(missing) > 1:
            for _ in self._each([("head", name) for name in missing]):
                pass

    def _each(self, jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the results of jobs as they come; a few wait at a time, so that an end is soon."""
        if jobs and self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers,
                mp_context=processes.context(),
                initializer=_begin,
                initargs=(self.suite, self.settings, dict(os.environ)),
            )
        left, running = iter(jobs), set[Future[Any]]()
        while True:
            for job in left:
                assert self._executor is not None
                running.add(self._executor.submit(_run, job))
                if len(running) >= 2 * self.workers:
                    break
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    found = future.result()
                except BrokenProcessPool:
                    raise ScoreError(
                        "a process that scores models ended by itself, perhaps for lack of memory."
                        " Give fewer --workers; what was scored is kept."
                    ) from None
                yield found


# --- in the processes -------------------------------------------------------------------------

_state: Any = None


def _begin(suite: Suite, settings: Settings, environment: Mapping[str, str]) -> None:
    global _state
    processes.begin(environment)
    import torch

    from breadcrumbs.methods.registry import load_plugin

    torch.set_num_threads(1)
    for plugin in settings.plugins:
        load_plugin(plugin)
    _state = (suite, settings)


def _run(job: tuple[Any, ...]) -> Any:
    """Do a job: make a head, or score a model."""
    global _state
    from breadcrumbs.evaluate.scoring.worker import Worker

    if isinstance(_state, tuple):
        _state = Worker(*_state)
    if job[0] == "head":
        return _state.make_head(job[1])
    return job[1], _state.score(*job[2:])
