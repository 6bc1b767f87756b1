"""Fine-tune a base on the tasks of a suite, in several processes of one thread.

    suite + settings + seeds -> jobs -> seed-S/TASK/ -> seed-S/suite.yaml

What is finished is not done again, and what was interrupted goes on from its last state.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.checkpoint import cache
from breadcrumbs.errors import BreadcrumbsError, OutputError, SuiteError, TrainingError, listing
from breadcrumbs.evaluate.finetuning import finetuned
from breadcrumbs.evaluate.finetuning.training import Settings, Step
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.merging import executors
from breadcrumbs.merging.executors import RETRIES, Executor, Failed, Unit, machines

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite

#: What processes import: once, by the one that all others are forked from.
NEEDED = ["torch", "breadcrumbs.evaluate.finetuning.tuner"]
#: Packages whose versions fine-tunings depend on.
PACKAGES = ("torch", "transformers", "tokenizers")
TUNE = Unit(
    "fine-tuning",
    "Run this again to go on, with fewer --workers or a smaller --batch.",
    error=TrainingError,
)


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
    """What a process needs. A suite is read from its file again. needs: what its machine must have,
    if it is another one."""

    suite: str
    base: str
    output: Path
    settings: Settings
    device: str
    cache: Path | None
    every: float
    force: bool
    needs: machines.Needs | None = None


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
    on: str | None = None,
    retries: int = RETRIES,
    tell: Callable[[Event], None] = lambda event: None,
) -> list[dict[str, Any]]:
    """Fine-tune the base of a suite on each of its tasks, for each seed; return the records.

    output: a folder; the models are ``seed-S/TASK``, and ``seed-S/suite.yaml`` is the suite with
    them. tasks: names; all unless told. workers: processes; one for each core unless told, and one
    for a GPU. on: where instead, such as ``ray`` (`executors.named`). retries: how often one goes
    on whose worker was lost. force: begin again what was made, or begun, with whatever settings.
    every: seconds between two states that are saved.

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
    where_to = on or f"processes:{min(number, len(jobs))}"
    done: dict[Job, dict[str, Any]] = {}
    failed = []
    with _opened(setup, where_to, int(where.type != "cpu"), retries) as (executor, setup):
        for job in jobs:
            tell(Event(job, None))

        def sent(job: Job, news: str | Step) -> None:
            tell(Event(job, news))

        for job, news in executor.each(partial(_run, setup), jobs, TUNE, sent):
            event = Event(job, _ended(suite, news, setup))
            tell(event)
            if isinstance(event.news, Exception):
                failed.append(event)
            else:
                assert isinstance(event.news, dict)
                done[job] = event.news
                _write_manifest(suite, Path(output), job.seed, done)
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


def _write_manifest(suite: Suite, output: Path, seed: int, done: Iterable[Job]) -> None:
    """Write the suite with those of its tasks' models that are there, if there are any.

    done: those that another machine has made, which may be seen here only later.
    """
    folders = {task.name: finetuned.folder(output, task.name, seed) for task in suite.tasks}
    models = {
        name: str(path)
        for name, path in folders.items()
        if Job(name, seed) in done or path.exists()
    }
    path = output / f"seed-{seed}" / "suite.yaml"
    if models:
        try:
            suite.with_models(models, seed).save(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}.") from None


@contextmanager
def _opened(setup: _Setup, on: str, gpus: int, retries: int) -> Iterator[tuple[Executor, _Setup]]:
    """Open what runs fine-tunings; give it with the setup that its processes need."""
    with ExitStack() as stack:
        opening = executors.opened(on, needed=NEEDED, gpus=gpus, retries=retries)
        executor = stack.enter_context(opening)
        if not executor.here:
            token = stack.enter_context(machines.token(setup.output))
            needs = machines.needs(
                [setup.suite, setup.base],
                token=token,
                packages=PACKAGES,
                storage="the suite, its base and the output",
            )
            executor.everywhere(machines.check, needs, TUNE)
            setup = replace(setup, needs=needs)
        yield executor, setup


def _ended(
    suite: Suite, found: dict[str, Any] | Failed, setup: _Setup
) -> dict[str, Any] | Exception:
    """Return the record of a fine-tuning, or its error: also where another machine took another
    base or other rows."""
    if isinstance(found, Failed):
        return found.error
    if setup.needs is None:
        return found
    of, task = found["made_of"], suite.task(found["made_of"]["task"])
    base = Keys(suite, setup.settings.precision).of(suite.base)
    mine = {"base": base, "training rows": task.rows("train").digest}
    for name, here in mine.items():
        if of[name] != here:
            return TrainingError(
                f"task {task.name!r}: a worker took other files: its {name} ({of[name][:8]}) are"
                f" not those here ({here[:8]}). Give all machines the same, and --force."
            )
    return found


# --- in the processes -------------------------------------------------------------------------

#: What this process fine-tunes with, by its setup.
_tuner: tuple[_Setup, Any] | None = None


def _run(setup: _Setup, job: Job, send: Callable[[str | Step], None]) -> dict[str, Any]:
    global _tuner
    import time

    import torch

    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.finetuning.tuner import Tuner

    if setup.needs is not None:
        machines.check(setup.needs)
    if _tuner is None or _tuner[0] != setup:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        made = Tuner(
            suites.load(setup.suite, base=setup.base), setup.output, setup.settings,
            device=setup.device, cache=setup.cache, every=setup.every, force=setup.force,
        )  # fmt: skip
        _tuner = setup, made
    told = 0.0

    def tell(what: str | Step) -> None:
        nonlocal told
        now = time.monotonic()
        if isinstance(what, str) or now - told > 0.25:
            told = now
            send(what)

    return _tuner[1].tune(job.task, job.seed, tell)
