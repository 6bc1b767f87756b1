"""Fine-tune a base on the tasks of a suite, in several processes of one thread.

    suite + settings + seeds -> jobs -> seed-S/TASK/ -> seed-S/suite.yaml

What is finished is not done again, and what was interrupted goes on from its last state.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from breadcrumbs.checkpoint import cache
from breadcrumbs.errors import BreadcrumbsError, OutputError, SuiteError, TrainingError, listing
from breadcrumbs.evaluate.finetuning import finetuned
from breadcrumbs.evaluate.finetuning.training import Settings, Step
from breadcrumbs.evaluate.scoring import processes

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite


@dataclass(frozen=True)
class Job:
    """One fine-tuning."""

    task: str
    seed: int


@dataclass(frozen=True)
class Event:
    """News of a job: None as long as it waits, then lines on what is being done and steps, and at
    the end its record or an error."""

    job: Job
    news: str | Step | dict[str, Any] | Exception | None


@dataclass(frozen=True)
class _Setup:
    """What a process needs. A suite is read from its file again."""

    suite: str
    base: str
    output: Path
    settings: Settings
    device: str
    cache: Path | None
    every: float
    force: bool


def run(
    suite: Suite,
    output: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    tasks: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    workers: int | None = None,
    device: str = "auto",
    force: bool = False,
    every: float = 60.0,
    tell: Callable[[Event], None] = lambda event: None,
) -> list[dict[str, Any]]:
    """Fine-tune the base of a suite on each of its tasks, for each seed; return the records.

    output: a folder; the models are ``seed-S/TASK``, and ``seed-S/suite.yaml`` is the suite with
    them. tasks: names; all unless told. workers: processes; one for each core unless told, and one
    for a GPU. force: begin again what was made, or begun, with whatever settings. every: seconds
    between two states that are saved.

    OutputError, before anything is done, for what was made with other settings. The failure of one
    task does not stop the others; its error is raised at the end.
    """
    from breadcrumbs.modules import devices

    devices.require_torch()
    if suite.path is None:
        raise SuiteError("worker processes need a suite that was read from a file. Save it to one.")
    settings, where = settings or Settings(), devices.device(device)
    settings = replace(settings, precision=devices.precision(settings.precision, where))
    chosen = [suite.task(name).name for name in dict.fromkeys(tasks)] or [
        task.name for task in suite.tasks
    ]
    jobs = [Job(name, seed) for seed in dict.fromkeys(seeds) for name in chosen]
    _check(suite, Path(output), settings, jobs, force)
    setup = _Setup(
        os.path.abspath(suite.path), suite.base, Path(os.path.abspath(output)), settings,
        str(where), cache.folder(), every, force,
    )  # fmt: skip
    number = workers or (os.cpu_count() or 1 if where.type == "cpu" else 1)
    done, failed = {}, []
    for event in _events(setup, jobs, min(number, len(jobs))):
        tell(event)
        if isinstance(event.news, dict):
            done[event.job] = event.news
            _write_manifest(suite, Path(output), event.job.seed)
        elif isinstance(event.news, Exception):
            failed.append(event)
    if failed:
        others = [f"{event.job.task}, seed {event.job.seed}" for event in failed[1:]]
        if not isinstance(failed[0].news, BreadcrumbsError):
            raise failed[0].news
        more = f" Also failed: {listing(others)}." if others else ""
        raise type(failed[0].news)(f"{failed[0].news}{more}")
    return [done[job] for job in jobs]


def _check(suite: Suite, output: Path, settings: Settings, jobs: list[Job], force: bool) -> None:
    """Raise OutputError where an output is of other settings, unless ``force``, or no output.

    The folders that all is written to are made.
    """
    for job in jobs:
        path = finetuned.folder(output, job.task, job.seed)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path.parent}: cannot be made: {error.strerror}. Give another output folder."
            ) from None
        record = finetuned.found(path)
        if force:
            continue  # it is removed when its turn comes, and its rows and the base are there
        before = finetuned.begun(path) if record is None else record["made_of"]
        if before is not None:
            now = finetuned.made_of(suite, suite.task(job.task), settings, job.seed)
            finetuned.check_same(path, before, now)


def _write_manifest(suite: Suite, output: Path, seed: int) -> None:
    """Write the suite with those of its tasks' models that are there, if there are any."""
    folders = {task.name: finetuned.folder(output, task.name, seed) for task in suite.tasks}
    models = {name: str(path) for name, path in folders.items() if path.exists()}
    path = output / f"seed-{seed}" / "suite.yaml"
    if models:
        try:
            suite.with_models(models, seed).save(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}.") from None


def _events(setup: _Setup, jobs: Sequence[Job], workers: int) -> Iterator[Event]:
    """Yield what the processes tell, until all jobs have ended."""
    context = processes.context()
    news = context.Queue()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(setup, news, dict(os.environ))
    )
    running: dict[Future[dict[str, Any]], Job] = {}
    try:
        running = {pool.submit(_run, job): job for job in jobs}
        yield from (Event(job, None) for job in jobs)
        while running:
            with contextlib.suppress(Empty):
                yield news.get(timeout=0.1)
            for future in wait(running, timeout=0).done:
                job = running.pop(future)
                yield Event(job, _ended(future))
    finally:
        began = list((pool._processes or {}).values())
        if running:
            for process in began:
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _ended(future: Future[dict[str, Any]]) -> dict[str, Any] | Exception:
    try:
        return future.result()
    except BrokenProcessPool:
        return TrainingError(
            "a process was killed from outside, or for lack of memory. Run this again to go on,"
            " with fewer --workers or a smaller --batch."
        )
    except Exception as error:  # of ours, or of a foundation in a Python file
        return error


# --- in the processes -------------------------------------------------------------------------

_tuner: Any = None
_news: Any = None


def _begin(setup: _Setup, news: Any, environment: Mapping[str, str]) -> None:
    global _tuner, _news
    processes.begin(environment)
    _tuner, _news = setup, news


def _run(job: Job) -> dict[str, Any]:
    global _tuner
    import time

    import torch

    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.finetuning.tuner import Tuner

    if isinstance(_tuner, _Setup):
        it = _tuner
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        _tuner = Tuner(
            suites.load(it.suite, base=it.base), it.output, it.settings,
            device=it.device, cache=it.cache, every=it.every, force=it.force,
        )  # fmt: skip
    told = 0.0

    def tell(what: str | Step) -> None:
        nonlocal told
        now = time.monotonic()
        if isinstance(what, str) or now - told > 0.25:
            told = now
            _news.put(Event(job, what))

    return _tuner.tune(job.task, job.seed, tell)
