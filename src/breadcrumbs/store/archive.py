"""A store as one file and back: a tar archive of its history and its task files.

The first member, ``store.json``, has the settings, the log and what is known of the task files; a
member ``tasks/HASH.safetensors`` follows for each. The running sum is made anew on importing.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import whole
from breadcrumbs.errors import BreadcrumbsError, MismatchError, OutputError, StoreError
from breadcrumbs.merging import opening
from breadcrumbs.store import authors, files
from breadcrumbs.store.history import Entry, History, Revision
from breadcrumbs.store.ledger import Ledger, Settings, Task, checked
from breadcrumbs.store.settling import check, located, recipe, said_of
from breadcrumbs.store.store import Store
from breadcrumbs.taskfile.reader import TaskFile

VERSION = 2
HEAD = "store.json"
#: Bytes of the first entry of an archive at most.
LARGEST = 256 << 20


def export(store: Store, output: str | os.PathLike[str], *, force: bool = False) -> int:
    """Write a store, with its whole history, to one archive; return its bytes."""
    path = Path(output)
    if path.exists() and not force:
        raise OutputError(f"{path}: exists. Give another output, or --force to replace it.")
    history = store.ledger.history()
    used = history.tasks()
    tasks = [task for digest, task in store.ledger.tasks().items() if digest in used]
    head = {
        "version": VERSION,
        "settings": asdict(store.settings),
        "tasks": [asdict(task) for task in tasks],
        "log": [asdict(revision) for revision in history.log],
        "whole": [
            {"revision": number, "tasks": [asdict(entry) for entry in entries]}
            for number, entries in history.whole.items()
        ],
    }
    text = json.dumps(head, indent=1).encode()
    try:
        with (
            whole.file(path, force=force) as place,
            tarfile.open(place, "w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.addfile(_member(HEAD, len(text)), io.BytesIO(text))
            for task in tasks:
                place = files.place(store.folder, task.hash)
                with open(place, "rb") as file:
                    archive.addfile(_member(f"{files.TASKS}/{place.name}", task.bytes), file)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}.") from None
    return path.stat().st_size


def import_(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    base: str | os.PathLike[str] | None = None,
) -> Store:
    """Make a store of an archive, in a folder that is new or empty. base: where it is now.

    Every task file is compared with its hash, and the base with its own.
    """
    path = Path(folder)
    try:
        with tarfile.open(archive, "r:") as opened:
            settings, tasks, history = _head(opened, str(archive))
            where = settings.base if base is None else os.fspath(base)
            settings = replace(settings, base=located(where, settings))
            with files.fresh(path) as making:
                wanted = {task.hash: task for task in tasks}
                _extract(opened, making, settings, wanted, str(archive))
                _check_fits(settings, history, making, str(archive))
                Ledger.create(making / files.LEDGER, settings)
                ledger = Ledger(making / files.LEDGER)
                try:
                    ledger.restore(tasks, history)
                finally:
                    ledger.close()
    except (OSError, tarfile.TarError) as error:
        raise StoreError(f"{archive}: cannot be read as an export: {error}.") from None
    store = Store(path)
    try:
        store.update()
    except BaseException:
        store.close()
        raise
    return store


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _head(opened: tarfile.TarFile, where: str) -> tuple[Settings, list[Task], History]:
    """Return what the first member says; StoreError if that is not all it must."""
    member = opened.next()
    named = member is not None and member.name == HEAD and member.isreg()
    file = opened.extractfile(member) if member and named else None
    if member is None or file is None or member.size > LARGEST:
        raise StoreError(
            f"{where}: is not an export of a store. `breadcrumbs store export` makes one."
        )
    try:
        data = json.loads(file.read())
        if data["version"] not in (1, VERSION):
            raise StoreError(
                f"{where}: is an export of version {data['version']!r}; this program knows"
                f" {VERSION}. Update Breadcrumbs."
            )
        data.setdefault("whole", [])  # version 1 has none
        for key in ("tasks", "log", "whole"):
            if not isinstance(data[key], list):
                raise TypeError(key)
        settings = Settings(**data["settings"])
        tasks = [Task(**task) for task in data["tasks"]]
        log = [Revision(**revision) for revision in data["log"]]
        history = History(log, dict(map(_written_out, data["whole"])))
        for task in tasks:
            files.place(Path(where), task.hash)
            _expect(task, {"hash": str, "bytes": int, "said": Mapping})
        for revision in log:
            kinds = {"number": int, "time": str, "action": str, "name": str, "task": str}
            kinds |= {"weight": float, "author": str, "message": str, "target": int | None}
            _expect(revision, kinds)
        checked(settings)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{where}: its {HEAD} cannot be read: {error}. It is damaged.") from None
    known = {task.hash for task in tasks}
    if not history.tasks().keys() <= known:
        raise StoreError(f"{where}: its log names a task that it does not hold. It is damaged.")
    for revision in log:
        authors.by(Path(where), revision.author, revision.message)
    for _, entries in history.states():
        for entry in entries:
            check(entry.name, entry.weight)
    return settings, tasks, history


def _written_out(said: Mapping[str, Any]) -> tuple[int, list[Entry]]:
    """Return the number of a revision, and its tasks that are written out."""
    entries = [Entry(**entry) for entry in said["tasks"]]
    for entry in entries:
        _expect(entry, {"name": str, "task": str, "weight": float})
    if type(said["revision"]) is not int:
        raise TypeError("revision")
    return said["revision"], entries


def _expect(record: Any, kinds: Mapping[str, Any]) -> None:
    for key, kind in kinds.items():
        if not isinstance(getattr(record, key), kind) or isinstance(getattr(record, key), bool):
            raise TypeError(key)


def _check_task(path: Path, noted: Task, settings: Settings, where: str) -> None:
    """Raise an error unless a task file is one, on the store's base, and says what was noted."""
    with TaskFile.open(path) as task:
        if task.base.hash != settings.base_hash:
            raise MismatchError(
                f"{where}: is a task on another base, hash {task.base.hash[:16]}..., not that of"
                " this store. The export is damaged."
            )
        if json.loads(json.dumps(said_of(task))) != dict(noted.said):
            raise StoreError(f"{where}: says something else of itself than {HEAD}. It is damaged.")


def _check_fits(settings: Settings, history: History, making: Path, where: str) -> None:
    """Raise an error unless the tasks can be merged by the store's method, as those added can."""
    seen: set[str] = set()
    for _, entries in history.states():
        for entry in entries:
            if entry.task in seen:
                continue
            seen.add(entry.task)
            others = [other for other in entries if other is not entry]
            try:
                with opening.opened(recipe(settings, [*others[:1], entry], making)):
                    pass
            except BreadcrumbsError as error:  # of a place that is gone by then
                raise type(error)(str(error).replace(f"{making}{os.sep}", f"{where}: ")) from None


def _extract(
    opened: tarfile.TarFile, making: Path, settings: Settings, left: dict[str, Task], where: str
) -> None:
    """Copy the task files of an archive to their places, each compared with its hash."""
    while (member := opened.next()) is not None:
        digest = Path(member.name).name.removesuffix(".safetensors")
        file = opened.extractfile(member) if member.isreg() else None
        if file is None or digest not in left or member.size != left[digest].bytes:
            raise StoreError(f"{where}: holds {member.name!r}, which its {HEAD} does not name.")
        place = files.place(making, digest)
        if files.copy(file, place) != digest:
            raise StoreError(f"{where}: {member.name} does not match its hash.")
        _check_task(place, left[digest], settings, f"{where}: {member.name}")
        del left[digest]
    if left:
        raise StoreError(f"{where}: lacks {len(left)} task files. It is not whole.")
