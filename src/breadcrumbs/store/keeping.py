"""What a store takes, and making room: old revisions and the files that they alone need."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.errors import StoreError
from breadcrumbs.store import files, opted

if TYPE_CHECKING:
    from breadcrumbs.store.store import Store


@dataclass(frozen=True)
class Collected:
    """What `collect` found. first: the oldest revision that is kept. revisions: how many earlier
    ones go. tasks: (name, hash, bytes) of the task files that go. bytes: of all files that go.
    deleted: whether they are gone."""

    first: int
    revisions: int
    tasks: list[tuple[str, str, int]]
    bytes: int
    deleted: bool


def collect(
    store: Store, keep: int = 1, *, delete: bool = False, threads: int | None = None
) -> Collected:
    """Drop all but the last ``keep`` revisions, and the task files that no kept one has.

    delete: whether they are dropped, and not only named. The model of each kept revision keeps its
    bits. A process that is killed meanwhile leaves all revisions or those that are kept; files that
    it left are found the next time.
    """
    if keep < 1:
        raise StoreError(f"{store.folder}: at least the latest revision is kept, not {keep}.")
    history = store.ledger.history()
    first = max(history.first, history.latest - keep + 1)
    kept = history.since(first)
    names = history.tasks()
    going = {path.stem: path for path in _task_files(store.folder, set(kept.tasks()))}
    tasks = [(names.get(digest, ""), digest, _size(path)) for digest, path in going.items()]
    if delete:
        store.update(threads)  # the sum may be of a revision that goes
        store.ledger.drop(first, lambda needed: _delete(store.folder, needed))
        store.forget()
    return Collected(
        first if history.log else 0,
        len(history.log) - len(kept.log),
        sorted(tasks),
        sum(nbytes for _, _, nbytes in tasks),
        delete,
    )


def _task_files(folder: Path, needed: Collection[str]) -> list[Path]:
    """Return the task files in a store but for those that are needed."""
    return sorted(p for p in (folder / files.TASKS).glob("*.safetensors") if p.stem not in needed)


def _delete(folder: Path, needed: Collection[str]) -> None:
    for path in _task_files(folder, needed):
        with contextlib.suppress(OSError):  # open elsewhere, on Windows: found the next time
            path.unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def info(store: Store) -> dict[str, Any]:
    """Return what a store is, as plain data: base, method, revisions, tasks, licences, bytes.

    packed_as: the transform that fine-tunings are cut by when they are added. bytes: of task files
    of the latest revision, of all task files, of the running sum, of Grams. grams: whether it keeps
    these.
    """
    history = store.ledger.history()
    entries, tasks = history.at(None), store.ledger.tasks()
    transform, given = store.packed_as()
    said = [tasks[entry.task].said for entry in entries]
    every = [_size(path) for path in _task_files(store.folder, ())]
    sums = [_size(path) for path in (store.folder / files.SUMS).glob("*")]
    settings = store.settings
    return {
        "store": str(store.folder),
        "base": settings.base,
        "base_name": settings.base_name,
        "base_revision": settings.base_revision,
        "base_hash": settings.base_hash,
        "method": settings.method,
        "parameters": dict(settings.parameters),
        "packed_as": {"transform": transform, "parameters": {k: str(v) for k, v in given.items()}},
        "first": history.first if history.log else 0,
        "latest": history.latest,
        "last": asdict(history.log[-1]) if history.log else None,
        "tasks": [asdict(entry) for entry in entries],
        "grams": opted.keeps(store),
        "licences": dict(Counter(str(one.get("license") or "") for one in said)),
        "bytes": {
            "tasks": sum({entry.task: tasks[entry.task].bytes for entry in entries}.values()),
            "all_tasks": sum(every),
            "sums": sum(sums),
            "grams": opted.size(store),
        },
    }
