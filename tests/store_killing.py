"""Changes a store in processes that are killed, or that run at the same time, and looks at it.

    python tests/store_killing.py kill FOLDER BASE FINETUNED CHANGE POINTS
    python tests/store_killing.py race FOLDER BASE FINETUNED FINETUNED FINETUNED METHOD

A process of its own that forks: only then are there no threads and connections that a fork would
tear. ``kill``: FOLDER/store holds tasks; a copy is changed by a process that kills itself when so
many lines of the store's code have run, half way through a write, too. Then it must hold what it
held before or after, whole, and the change must go through when it is made again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import breadcrumbs.store.store as module
from breadcrumbs.checkpoint import hashing
from breadcrumbs.errors import StoreError
from breadcrumbs.store import Store, collect
from breadcrumbs.store.sums import Sums

CODE = str(Path(module.__file__).parent)
CHANGES: dict[str, Callable[[Store, str], object]] = {
    "add": lambda store, source: store.add("new", source, weight=0.3),
    "remove": lambda store, source: store.remove("t1"),
    "set": lambda store, source: store.set("t2", -0.7),
    "replace": lambda store, source: store.add("t1", source, replace=True),
    "revert": lambda store, source: store.revert(1),
    "gc": lambda store, source: collect(store, delete=True),
}


def forked(work: Callable[[], None]) -> int:
    """Do something in a process of its own; return what it ended with, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def killed_after(lines: int, work: Callable[[], None]) -> None:
    """Do something and stop dead when so many lines of the store's code have run."""
    left = [lines]

    def count(frame, event, argument):
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        left[0] -= event == "line"
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return count

    write = Sums._store

    def half(self, name, at, values):
        if left[0] <= 3:  # about to die: with half of it on the disk
            flat = values.view("u1").reshape(-1)
            write(self, name, at, flat[: flat.size // 2].copy())
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, name, at, values)

    Sums._store = half  # type: ignore
    threading.settrace(count)
    sys.settrace(count)
    work()
    sys.settrace(None)
    threading.settrace(None)  # type: ignore


def merged(store: Store, output: Path, at: int | None = None, scratch: bool = False) -> str:
    store.merge(output, at=at, force=True, scratch=scratch)
    return hashing.model_hash(output)


def kill(folder: Path, source: str, change: str, points: list[int]) -> None:
    """Print how many of the processes were killed, and how many before the change was noted."""
    plain, copy, output = folder / "store", folder / "copy", folder / "merged.safetensors"
    ends = dict.fromkeys(("killed", "before", "after"), 0)
    notes = folder / "notes"
    for point in points:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(plain, copy)

        def work() -> None:
            with Store.open(copy) as store:
                CHANGES[change](store, source)

        def look_at_gc() -> None:
            with Store.open(plain) as store:
                before, number = merged(store, output), store.ledger.latest()
            with Store.open(copy) as store:
                log = [revision.number for revision in store.log()]
                assert log in ([*range(1, number + 1)], [number]), log
                assert merged(store, output) == before == merged(store, output, scratch=True)
                if len(log) > 1:
                    merged(store, output, at=1)
                assert store.verify().hash == before
                CHANGES[change](store, source)
                assert merged(store, output) == before == store.verify().hash
                used = {entry.task for entry in store.entries()}
                assert {path.stem for path in (copy / "tasks").iterdir()} == used
                assert store.ledger.tasks().keys() == used
                assert store.verify().repaired == 0
            notes.write_text("after" if len(log) == 1 else "before")

        def look() -> None:
            with Store.open(plain) as store:
                before, number = merged(store, output), store.ledger.latest()
            with Store.open(copy) as store:
                log = store.log()
                assert len(log) in (number, number + 1)
                if len(log) == number:
                    assert merged(store, output) == before
                found = merged(store, output)
                assert found == merged(store, output, scratch=True)
                assert store.verify().hash == found
                assert store.verify().repaired == 0
                if len(log) == number:
                    CHANGES[change](store, source)
                assert store.ledger.latest() == number + 1
                assert merged(store, output, at=number) == before
                assert merged(store, output) == merged(store, output, scratch=True)
            notes.write_text("after" if len(log) > number else "before")

        code = forked(lambda point=point: killed_after(point, work))
        assert code in (0, -signal.SIGKILL), code
        assert forked(look_at_gc if change == "gc" else look) == 0, (
            f"{change} killed after {point} lines"
        )
        ends["killed"] += code != 0
        ends[notes.read_text()] += 1
    print(ends)


def race(folder: Path, base: str, sources: list[str], method: str) -> None:
    """Add tasks from several processes at once, all of them one of the same name, too."""
    path, output = folder / "race", folder / "merged.safetensors"

    def make() -> None:
        with Store.create(path, base, method=method) as store:
            if method == "wudi":
                store.keep_grams()

    def work(number: int) -> None:
        with Store.open(path) as store:
            for again in range(2):
                store.add(f"task {number} {again}", sources[number], weight=1 + again)
                merged(store, folder / f"merged-{number}.safetensors")
            try:
                store.add("same", sources[number])
            except StoreError as error:
                assert "already" in str(error), error
            store.remove(f"task {number} 0")

    def look() -> None:
        with Store.open(path) as store:
            names = sorted(entry.name for entry in store.entries())
            assert names == ["same", *(f"task {n} 1" for n in range(len(sources)))], names
            assert store.ledger.latest() == 3 * len(sources) + 1
            assert store.verify().repaired == 0
            assert merged(store, output) == merged(store, output, scratch=True)

    assert forked(make) == 0
    children = []
    for number in range(len(sources)):
        child = os.fork()
        if not child:
            os._exit(forked(lambda number=number: work(number)))
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert forked(look) == 0


if __name__ == "__main__":
    what, folder, base, *rest = sys.argv[1:]
    if what == "kill":
        kill(Path(folder), rest[0], rest[1], [int(point) for point in rest[2].split(",")])
    else:
        race(Path(folder), base, rest[:-1], rest[-1])
