"""All parts of a merge, over whatever runs functions: an executor, or one of your own.

A scheduler is one function: it is given the numbers of parts, has `merge_part` called for each,
anywhere, and yields the reports as they come. All that is written lies with the output, so nothing
but reports goes through it, and what a dead worker had finished stays finished.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import durable
from breadcrumbs.checkpoint.writer import IN_PARTS
from breadcrumbs.errors import OutputError
from breadcrumbs.machine import available_cores
from breadcrumbs.merging.executors import RETRIES, Executor, Processes, Unit, values
from breadcrumbs.merging.parts.committing import commit
from breadcrumbs.merging.parts.dealing import Deal
from breadcrumbs.merging.parts.doing import Merge, PartReport, begun, merge_part
from breadcrumbs.merging.parts.passes import ENDINGS
from breadcrumbs.merging.parts.state import Folder
from breadcrumbs.merging.report import Report

#: Calls `merge_part` for every one of some parts; yields the reports in any order.
Each = Callable[[Sequence[int]], Iterable[PartReport]]
#: Parts for each that is done at once: so many that one that is slow is no hindrance.
PARTS = 2
#: What a worker does, for messages.
PART = Unit(
    "part", "Give fewer --threads, or --max-memory, and --resume.", "Give --resume to go on."
)
#: Seconds between two looks at what is done.
LOOK = 0.5


def drive(merge: Merge, parts: int, each: Each, **settings: Any) -> Report:
    """Have all parts done, round after round until none waits, and commit; return the report.

    each: what runs them. settings: as for `commit`. OutputError where parts wait for what others
    say is done: then they do not see the same folder.
    """
    waiting, before = list(range(1, parts + 1)), None
    while waiting:
        reports = sorted(each(waiting), key=lambda report: report.part)
        now = [(it.part, it.waits, it.left) for it in reports if it.again]
        if now == before and not any(it.written for it in reports):
            raise OutputError(
                f"{merge.output}: parts wait for each other. Do all workers see the same folder?"
            )
        waiting, before = [it.part for it in reports if it.again], now
    report = commit(merge, **settings)
    if report is None:
        raise OutputError(f"{merge.output}: was committed by somebody else meanwhile.")
    return report


def fresh(merge: Merge, *, resume: bool, force: bool) -> None:
    """Remove what an interrupted merge in parts left there, if ``force`` and not ``resume`` say so.

    OutputError if neither does.
    """
    folder = Folder(Path(merge.output))
    if (folder.path / IN_PARTS).exists() and not resume:
        if not force:
            raise OutputError(
                f"{folder.path}: an earlier merge was interrupted there. Give --resume to go on"
                " with it, or --force to start over."
            )
        shutil.rmtree(folder.path)


def on_processes(
    merge: Merge,
    processes: int,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    verify: bool = False,
    retries: int = RETRIES,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Report:
    """Merge on so many processes of this machine; return the report.

    threads, max_memory: of all of them together. retries: how often a part is done again whose
    process died. Others: as for `merge_part`. What an interrupted merge has done is not done again.
    """
    work = partial(
        _work,
        merge,
        threads=max(1, (threads or available_cores()) // processes),
        max_memory=None if max_memory is None else max_memory // processes,
        kernel=kernel,
        verify=verify,
        sync=sync and durable.is_on(),
    )
    size = extent(merge)
    with Processes(processes, retries=retries) as found:
        return driven(merge, size, found, work, kernel=kernel, sync=sync, progress=progress)


def _work(merge: Merge, part: int, parts: int, **settings: Any) -> PartReport:
    return merge_part(merge, part, parts, **settings)


@dataclass(frozen=True)
class Extent:
    """How much a merge is: its folder, the files to write, and bytes to read."""

    folder: Folder
    shards: int
    total: int


def extent(merge: Merge) -> Extent:
    """Return how much a merge is, which is then begun."""
    with begun(merge) as (plan, folder):
        shards = len(Deal(plan, merge.shard_size).shards)
        return Extent(folder, shards, plan.bytes_measured + plan.bytes_read)


def driven(
    merge: Merge,
    extent: Extent,
    executor: Executor,
    work: Callable[..., PartReport],
    *,
    kernel: str,
    sync: bool,
    progress: Callable[[int], None],
) -> Report:
    """Have all parts done by an executor and commit; return the report.

    work: does a part, by its number and how many ``parts`` there are. Others: as for `drive`.
    """
    parts = min(extent.shards, executor.slots * PARTS)

    def each(numbers: Sequence[int]) -> Iterator[PartReport]:
        found = executor.each(partial(work, parts=parts), numbers, PART)
        yield from (report for _, report in values(found))

    with watched(extent, progress):
        return drive(merge, parts, each, kernel=kernel, sync=sync)


@contextmanager
def watched(extent: Extent, progress: Callable[[int], None]) -> Iterator[None]:
    """Tell what is done from the notes that lie there, as parts of so many bytes."""
    folder, shards, total = extent.folder, extent.shards, extent.total
    ended, told = threading.Event(), 0

    def look() -> None:
        nonlocal told
        while not ended.wait(LOOK):
            noted = {
                path.name
                for end in ENDINGS.values()
                for path in (folder.path / f"notes{end}").glob("[0-9]*")
            }
            done = total * len(noted) // max(1, shards)
            if done > told:
                progress(done - told)
                told = done

    watcher = threading.Thread(target=look, name="watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
