"""What people see of a fine-tuning under way: bars on a terminal, plain lines on a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from breadcrumbs.errors import BreadcrumbsError, counted, printable
from breadcrumbs.evaluate.finetuning.finetuning import Event, Job
from breadcrumbs.evaluate.finetuning.training import Step


@contextmanager
def told(*, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Give a function that shows the news of all jobs, on stderr."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield bars.tell
    else:
        yield _Lines().tell


def ended(record: dict[str, Any]) -> str:
    """Return what is said of a fine-tuning that is done."""
    scores = record["validation"]
    return (
        f"{scores['metric']} on validation rows {scores['before']:.4f} -> {scores['after']:.4f},"
        f" {record['rows_per_second']:g} rows/s, {record['seconds']:.0f} s"
    )


class _Lines:
    """A line where a job begins, every half a minute of its steps, and where it ends."""

    def __init__(self) -> None:
        self._next: dict[Job, float] = {}
        self._ended: set[Job] = set()

    def tell(self, event: Event) -> None:
        news, job = event.news, event.job
        if job in self._ended or news is None:  # late news, or none
            return
        if isinstance(news, Step):
            now = time.monotonic()
            if now < self._next.setdefault(job, now + 30):
                return
            self._next[job] = now + 30
            text = f"epoch {news.epoch + 1}, {_step(news)}"
        else:
            text = _text(news)
            if not isinstance(news, str):
                self._ended.add(job)
        print(f"{_name(job)}: {text}", file=sys.stderr, flush=True)


class _Bars:
    """A bar of rows for each job that is running, and a line for each that has ended."""

    def __init__(self, progress: Any):
        self._progress = progress
        self._all = progress.add_task("all", total=0, said="")
        self._jobs = 0
        self._bars: dict[Job, Any] = {}
        self._ended: set[Job] = set()

    def tell(self, event: Event) -> None:
        news, job = event.news, event.job
        if news is None:
            self._jobs += 1
        if job in self._ended or news is None:
            self._count()
            return
        if job not in self._bars:
            self._bars[job] = self._progress.add_task(_name(job), total=None, said="")
        bar = self._bars[job]
        if isinstance(news, Step):
            said = f"loss {news.loss:.3f}, {news.speed:.0f} rows/s"
            self._progress.update(bar, completed=news.rows, total=news.total, said=said)
        elif isinstance(news, str):
            self._progress.update(bar, said=news)
        else:
            self._ended.add(job)
            self._progress.remove_task(bar)
            self._progress.console.print(f"{_name(job)}: {_text(news)}")
            self._count()

    def _count(self) -> None:
        said = f"{len(self._ended)} of {counted(self._jobs, 'task')}"
        self._progress.update(self._all, completed=len(self._ended), total=self._jobs, said=said)


@contextmanager
def _bars() -> Iterator[_Bars]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        console=console,
        transient=True,
    )
    with progress:
        yield _Bars(progress)


def _name(job: Job) -> str:
    return printable(f"{job.task}, seed {job.seed}")


def _text(news: str | dict[str, Any] | Exception) -> str:
    if isinstance(news, dict):
        return ended(news)
    if isinstance(news, str):
        return news
    kind = "" if isinstance(news, BreadcrumbsError) else f"{type(news).__name__}: "
    return f"failed: {kind}{printable(str(news))}"


def _step(step: Step) -> str:
    left = (step.total - step.rows) / step.speed
    return f"loss {step.loss:.4f}, {step.speed:.0f} rows/s, {left:.0f} s left"
