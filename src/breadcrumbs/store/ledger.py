"""The ledger of a store: every change as one row of an SQLite database, in order.

A revision is a number; what it holds is found by going through the rows up to it. Rows are only
ever added, each in a transaction that is on the disk before it counts: a process that is killed, or
a machine that loses power, leaves the rows before.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from breadcrumbs.errors import StoreError, suggestion

VERSION = 1
APPLICATION = int.from_bytes(b"crms", "big")
#: Seconds to wait while another process writes.
WAIT = 600.0
_SCHEMA = (
    "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "CREATE TABLE tasks (hash TEXT PRIMARY KEY, bytes INTEGER NOT NULL, said TEXT NOT NULL) STRICT",
    "CREATE TABLE revisions (number INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT NOT NULL,"
    " name TEXT NOT NULL, task TEXT NOT NULL REFERENCES tasks, weight REAL NOT NULL) STRICT",
)
ACTIONS = ("add", "remove", "set")


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
class Revision:
    """A change. action: add, remove or set. task, weight: those that it adds, sets or removes."""

    number: int
    time: str
    action: str
    name: str
    task: str
    weight: float


@dataclass(frozen=True)
class Entry:
    """A task that takes part in a revision."""

    name: str
    task: str
    weight: float


class Ledger:
    """The open ledger at ``path``; safe to use from several threads and processes."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.RLock()
        self._connection = _connect(path)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, settings: Settings) -> None:
        """Write an empty ledger; the file must not exist."""
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN")
            for statement in _SCHEMA:
                connection.execute(statement)
            rows = [(key, json.dumps(value)) for key, value in asdict(settings).items()]
            connection.executemany("INSERT INTO settings VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()

    def _check(self) -> None:
        with _explained(self.path):
            (owner,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if owner != APPLICATION:
                raise StoreError(f"{self.path}: is no ledger of a store. Give another folder.")
            if version != VERSION:
                advice = "Update Breadcrumbs." if version > VERSION else "It is damaged."
                raise StoreError(
                    f"{self.path}: is a ledger of version {version}; this program knows {VERSION}."
                    f" {advice}"
                )
            found = self._connection.execute("SELECT sql FROM sqlite_master").fetchall()
            if {sql for (sql,) in found if sql} != set(_SCHEMA):
                raise StoreError(
                    f"{self.path}: its tables are not those of a ledger. It was altered or is"
                    " damaged; go back to a copy of it, or import an export."
                )

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

    def log(self) -> list[Revision]:
        """Return all revisions, the first one first."""
        rows = self._ask(
            "SELECT number, time, action, name, task, weight FROM revisions ORDER BY number"
        )
        return [Revision(*row) for row in rows]

    def latest(self) -> int:
        """Return the number of the latest revision, 0 before the first."""
        ((number,),) = self._ask("SELECT coalesce(max(number), 0) FROM revisions")
        return number

    def at(self, number: int | None = None) -> list[Entry]:
        """Return what a revision holds, in the order of adding; the latest unless told."""
        log = self.log()
        if number is not None and not 0 <= number <= len(log):
            raise StoreError(
                f"{self.path.parent}: there is no revision {number}; the latest is {len(log)}."
            )
        return list(replay(log[:number]))

    def add(self, name: str, task: Task, weight: float) -> Revision:
        """Note that a task was added; its file must be in its place by now."""
        with self._writing() as entries:
            if name in entries:
                raise StoreError(
                    f"{self.path.parent}: there is a task {name!r} already. Remove it first, or"
                    " give another name."
                )
            said = json.dumps(dict(task.said))
            self._connection.execute(
                "INSERT OR IGNORE INTO tasks VALUES (?, ?, ?)", (task.hash, task.bytes, said)
            )
            return self._append("add", Entry(name, task.hash, weight))

    def remove(self, name: str) -> Revision:
        """Note that a task was taken out."""
        with self._writing() as entries:
            return self._append("remove", self._entry(entries, name))

    def set(self, name: str, weight: float) -> Revision | None:
        """Note another weight of a task; None if it is the weight that it has."""
        with self._writing() as entries:
            entry = self._entry(entries, name)
            if entry.weight == weight:
                return None
            return self._append("set", Entry(name, entry.task, weight))

    def restore(self, tasks: Sequence[Task], log: Sequence[Revision]) -> None:
        """Write a whole history into an empty ledger, times included."""
        list(replay(log))
        with self._writing():
            rows = [(t.hash, t.bytes, json.dumps(dict(t.said))) for t in tasks]
            self._connection.executemany("INSERT INTO tasks VALUES (?, ?, ?)", rows)
            rows = [(r.number, r.time, r.action, r.name, r.task, r.weight) for r in log]
            self._connection.executemany("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _entry(self, entries: Mapping[str, Entry], name: str) -> Entry:
        if name not in entries:
            raise StoreError(
                f"{self.path.parent}: there is no task {name!r}.{suggestion(name, entries)}"
                " `breadcrumbs store list` lists them."
            )
        return entries[name]

    def _append(self, action: str, entry: Entry) -> Revision:
        ((number,),) = self._connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM revisions"
        ).fetchall()
        time = datetime.now(UTC).isoformat(timespec="seconds")
        row = (number, time, action, entry.name, entry.task, entry.weight)
        self._connection.execute("INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?)", row)
        return Revision(*row)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[dict[str, Entry]]:
        """A transaction that no other process writes in; yields the latest revision's tasks."""
        with self._lock, _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield {entry.name: entry for entry in self.at()}
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what cannot be read of a row into an error of ours."""
        try:
            yield
        except (ValueError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{self.path}: what it says cannot be read: {error}. It was altered or is damaged;"
                " go back to a copy of it, or import an export."
            ) from None

    def _ask(self, sql: str) -> list[Any]:
        with self._lock, _explained(self.path):
            return self._connection.execute(sql).fetchall()


def checked(settings: Settings) -> Settings:
    """Return settings; TypeError that names the first one of another kind than it must be."""
    for key, value in asdict(settings).items():
        kind = Mapping if key == "parameters" else str
        if not isinstance(value, kind) and not (key == "base_revision" and value is None):
            raise TypeError(key)
    return settings


def replay(log: Sequence[Revision]) -> Iterator[Entry]:
    """Yield what revisions come to; StoreError where they contradict each other."""
    entries: dict[str, Entry] = {}
    for expected, revision in enumerate(log, 1):
        held = entries.get(revision.name)
        fits = revision.number == expected and revision.action in ACTIONS
        if revision.action == "add":
            fits = fits and held is None
        else:
            fits = fits and held is not None and held.task == revision.task
        if not fits:
            raise StoreError(
                f"revision {revision.number}: {revision.action} {revision.name!r} does not follow"
                " from what is before it. The ledger was altered; go back to a copy of it."
            )
        if revision.action == "remove":
            del entries[revision.name]
        else:
            entries[revision.name] = Entry(revision.name, revision.task, revision.weight)
    yield from entries.values()


def _connect(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise StoreError(
            f"{path.parent}: is no store. Make one with `breadcrumbs store init DIR --base BASE`."
        )
    with _explained(path):
        where = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            where, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False
        )
        for setting in ("trusted_schema = OFF", "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}")
        return connection


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            f"{path}: the ledger cannot be used: {error}. Is the disk full, or the file damaged?"
        ) from None
