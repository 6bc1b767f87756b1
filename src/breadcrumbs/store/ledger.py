"""The ledger of a store: every change as one row of an SQLite database, in order.

Rows are added, each in a transaction that is on the disk before it counts: a process that is
killed, or a machine that loses power, leaves the rows before. `drop` alone takes rows away, in one
transaction, too. What a revision holds is for `history` to say.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from breadcrumbs.errors import StoreError, listing, suggestion
from breadcrumbs.store import tables
from breadcrumbs.store.history import Entry, History, Revision


@dataclass(frozen=True)
class Settings:
    """What a store was made with.

    base: path or hub id. base_name, base_revision, base_hash: as a task file says them. method,
    parameters: how its tasks are merged, and, where the method cuts, packed.
    """

    base: str
    base_name: str
    base_revision: str | None
    base_hash: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A task file in the store. hash: of its bytes. said: what the file says of itself, in short:
    name, author, license, transform, parameters, encoding, density, hash (of the task)."""

    hash: str
    bytes: int
    said: Mapping[str, Any]


@dataclass(frozen=True)
class By:
    """Who changes a store, and why."""

    author: str = ""
    message: str = ""


class Ledger:
    """The open ledger at ``path``; safe to use from several threads and processes."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.RLock()
        self._connection = tables.connect(path)
        try:
            tables.check(path, self._connection)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, settings: Settings) -> None:
        """Write an empty ledger; the file must not exist."""
        connection = tables.create(path)
        try:
            rows = [(key, json.dumps(value)) for key, value in asdict(settings).items()]
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()

    def settings(self) -> Settings:
        """Return what the store was made with."""
        rows = self._ask("SELECT key, value FROM settings")
        with self._reading():
            return checked(Settings(**{key: json.loads(value) for key, value in rows}))

    def tasks(self) -> dict[str, Task]:
        """Return all task files by hash, those that no revision uses any more included."""
        rows = self._ask("SELECT hash, bytes, said FROM tasks ORDER BY rowid")
        with self._reading():
            return {hash_: Task(hash_, size, dict(json.loads(said))) for hash_, size, said in rows}

    def history(self) -> History:
        """Return all changes that are kept."""
        with self._lock, tables.explained(self.path), self._moment():
            log = self._ask(
                "SELECT number, time, action, name, coalesce(task, ''), weight, author, message,"
                " target FROM revisions ORDER BY number"
            )
            rows = self._ask(
                "SELECT revision, name, task, weight FROM entries ORDER BY revision, position"
            )
        revisions = [Revision(*row) for row in log]
        whole: dict[int, list[Entry]] = {
            one.number: []
            for one in revisions
            if one.action == "revert" or one.number == revisions[0].number > 1
        }
        for number, *entry in rows:
            whole.setdefault(number, []).append(Entry(*entry))
        return History(revisions, whole)

    def log(self) -> list[Revision]:
        """Return all revisions that are kept, the first one first."""
        return list(self.history().log)

    def latest(self) -> int:
        """Return the number of the latest revision, 0 before the first."""
        ((number,),) = self._ask("SELECT coalesce(max(number), 0) FROM revisions")
        return number

    def at(self, number: int | None = None) -> list[Entry]:
        """Return what a revision holds, in the order of adding; the latest unless told."""
        return self.history().at(number, self.path.parent)

    def add(
        self, name: str, task: Task, weight: float, by: By, put: Callable[[], object] = list
    ) -> Revision:
        """Note that a task was added. put: gives its file its place, while nobody else writes."""
        with self._writing() as entries:
            if name in entries:
                raise StoreError(already(self.path.parent, name))
            self._keep(task, put)
            return self._append("add", Entry(name, task.hash, weight), by)

    def replace(
        self, name: str, task: Task, weight: float | None, by: By, put: Callable[[], object] = list
    ) -> Revision | None:
        """Note another file of a task, which then is the last one; None if nothing changes.

        weight: None for the one that it has. put: as in `add`.
        """
        with self._writing() as entries:
            before = self._entry(entries, name)
            after = Entry(name, task.hash, before.weight if weight is None else weight)
            if after == before:
                return None
            self._keep(task, put)
            return self._append("replace", after, by)

    def remove(self, name: str, by: By) -> Revision:
        """Note that a task was taken out."""
        with self._writing() as entries:
            return self._append("remove", self._entry(entries, name), by)

    def set(self, name: str, weight: float, by: By) -> Revision | None:
        """Note another weight of a task; None if it is the weight that it has."""
        with self._writing() as entries:
            entry = self._entry(entries, name)
            if entry.weight == weight:
                return None
            return self._append("set", Entry(name, entry.task, weight), by)

    def revert(self, number: int, by: By) -> Revision | None:
        """Note that the tasks are those of an earlier revision; None if they are already."""
        with self._writing() as entries:
            target = self.at(number)
            if list(entries.values()) == target:
                return None
            revision = self._append("revert", None, by, number)
            self._write_out(revision.number, target)
            return revision

    def drop(self, number: int, files: Callable[[Collection[str]], object]) -> None:
        """Forget the revisions before one, and the task files that no other has.

        files: told the hashes that are still needed, while nobody else writes.
        """
        with self._writing():
            kept = self.history().since(number)
            tell = self._connection.execute
            tell("DELETE FROM entries")
            tell("DELETE FROM revisions WHERE number < ?", (number,))
            for one in kept.log[:1]:
                tell(
                    "UPDATE revisions SET task = nullif(?, '') WHERE number = ?",
                    (one.task, one.number),
                )
            for at, entries in kept.whole.items():
                self._write_out(at, entries)
            needed = kept.tasks()
            for digest in self.tasks().keys() - needed.keys():
                tell("DELETE FROM tasks WHERE hash = ?", (digest,))
        with self._writing():
            files(self.tasks().keys())

    def move(self, base: str) -> None:
        """Note where the base is now."""
        with self._writing():
            self._connection.execute(
                "UPDATE settings SET value = ? WHERE key = 'base'", (json.dumps(base),)
            )

    def restore(self, tasks: Sequence[Task], history: History) -> None:
        """Write a whole history into an empty ledger, times included."""
        for _ in history.states():
            pass
        with self._writing():
            rows = [(t.hash, t.bytes, json.dumps(dict(t.said))) for t in tasks]
            self._connection.executemany("INSERT INTO tasks VALUES (?, ?, ?)", rows)
            for revision in history.log:
                self._insert(revision)
            for number, entries in history.whole.items():
                self._write_out(number, entries)

    def _keep(self, task: Task, put: Callable[[], object]) -> None:
        put()
        said = json.dumps(dict(task.said))
        self._connection.execute(
            "INSERT OR IGNORE INTO tasks VALUES (?, ?, ?)", (task.hash, task.bytes, said)
        )

    def _write_out(self, number: int, entries: Sequence[Entry]) -> None:
        rows = [(number, i, one.name, one.task, one.weight) for i, one in enumerate(entries)]
        self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", rows)

    def _insert(self, revision: Revision) -> None:
        self._connection.execute(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, nullif(?, ''), ?, ?, ?, ?)",
            astuple(revision),
        )

    def _entry(self, entries: Mapping[str, Entry], name: str) -> Entry:
        if name not in entries:
            raise StoreError(
                f"{self.path.parent}: there is no task {name!r}.{suggestion(name, entries)}"
                f" It has {listing(entries)}."
                if entries
                else f"{self.path.parent}: there is no task {name!r}; the store is empty."
            )
        return entries[name]

    def _append(
        self, action: str, entry: Entry | None, by: By, target: int | None = None
    ) -> Revision:
        ((number,),) = self._connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM revisions"
        ).fetchall()
        time = datetime.now(UTC).isoformat(timespec="seconds")
        name, task, weight = astuple(entry) if entry else ("", "", 0.0)
        made = Revision(number, time, action, name, task, weight, by.author, by.message, target)
        self._insert(made)
        return made

    @contextlib.contextmanager
    def _writing(self) -> Iterator[dict[str, Entry]]:
        """A transaction that no other process writes in; yields the latest revision's tasks."""
        with self._lock, tables.explained(self.path), tables.transaction(self._connection):
            yield {entry.name: entry for entry in self.at()}

    def _moment(self) -> contextlib.AbstractContextManager[None]:
        """What is read inside is of one moment; also where this thread is writing."""
        if self._connection.in_transaction:
            return contextlib.nullcontext()
        return tables.transaction(self._connection, "DEFERRED")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what cannot be read of a row into an error of ours."""
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{self.path}: cannot be read: {error}. It was altered or is damaged;"
                " restore a backup, or import an export."
            ) from None

    def _ask(self, sql: str) -> list[Any]:
        with self._lock, tables.explained(self.path):
            return self._connection.execute(sql).fetchall()


def checked(settings: Settings) -> Settings:
    """Return settings; TypeError that names the first one of another kind than it must be."""
    for key, value in asdict(settings).items():
        kind = Mapping if key == "parameters" else str
        if not isinstance(value, kind) and not (key == "base_revision" and value is None):
            raise TypeError(key)
    return settings


def already(folder: Path, name: str) -> str:
    """Return the message about a name that is taken."""
    return f"{folder}: task {name!r} exists already. Give --replace to replace it, or another name."
