"""The tables of a ledger: its schema, what is checked when it is opened, and older versions."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from breadcrumbs.errors import StoreError

VERSION = 2
APPLICATION = int.from_bytes(b"crms", "big")
#: Seconds to wait while another process writes.
WAIT = 600.0
_SETTINGS = "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"
_TASKS = (
    "CREATE TABLE tasks (hash TEXT PRIMARY KEY, bytes INTEGER NOT NULL, said TEXT NOT NULL) STRICT"
)
_REVISIONS = (
    "CREATE TABLE revisions (number INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT NOT NULL,"
    " name TEXT NOT NULL, task TEXT REFERENCES tasks, weight REAL NOT NULL, author TEXT NOT NULL,"
    " message TEXT NOT NULL, target INTEGER) STRICT"
)
_ENTRIES = (
    "CREATE TABLE entries (revision INTEGER NOT NULL REFERENCES revisions, position INTEGER NOT"
    " NULL, name TEXT NOT NULL, task TEXT NOT NULL REFERENCES tasks, weight REAL NOT NULL,"
    " UNIQUE (revision, position)) STRICT"
)
SCHEMA = (_SETTINGS, _TASKS, _REVISIONS, _ENTRIES)
#: The tables of version 1, which had no authors, messages and reverts.
_FIRST_SCHEMA = (
    _SETTINGS,
    _TASKS,
    "CREATE TABLE revisions (number INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT NOT NULL,"
    " name TEXT NOT NULL, task TEXT NOT NULL REFERENCES tasks, weight REAL NOT NULL) STRICT",
)


def create(path: Path) -> sqlite3.Connection:
    """Return an open transaction in a new file with empty tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for statement in SCHEMA:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Return an open ledger; StoreError if there is none."""
    if not path.is_file():
        raise StoreError(
            f"{path.parent}: is not a store. `breadcrumbs store init DIR --base BASE` makes one."
        )
    with explained(path):
        where = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            where, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False
        )
        for setting in ("trusted_schema = OFF", "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}")
        return connection


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says into an error of ours."""
    try:
        yield
    except sqlite3.Error as error:
        why = "Is the disk full, or the file damaged?"
        if not os.access(path.parent, os.W_OK):
            why = (
                "The folder cannot be written to, which SQLite needs even to read: copy the"
                " store to another place, or ask for the right to write."
            )
        raise StoreError(f"{path}: the ledger cannot be used: {error}. {why}") from None


def check(path: Path, connection: sqlite3.Connection) -> None:
    """Bring an open ledger to this version; StoreError for what is not a ledger."""
    with explained(path):
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        if owner != APPLICATION:
            raise StoreError(f"{path}: is not the ledger of a store. Give another folder.")
        if _version(connection) == 1:
            _check_tables(path, connection, _FIRST_SCHEMA)
            _upgrade(connection)
        version = _version(connection)
        if version != VERSION:
            advice = "Update Breadcrumbs." if version > VERSION else "It is damaged."
            raise StoreError(
                f"{path}: is a ledger of version {version}; this program knows {VERSION}. {advice}"
            )
        _check_tables(path, connection, SCHEMA)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return version


def _check_tables(path: Path, connection: sqlite3.Connection, wanted: Sequence[str]) -> None:
    found = connection.execute("SELECT sql FROM sqlite_master").fetchall()
    if {sql for (sql,) in found if sql} != set(wanted):
        raise StoreError(
            f"{path}: its tables are not those of a ledger. It was altered or is damaged; restore a"
            " backup, or import an export."
        )


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring a ledger of version 1 to this one."""
    with transaction(connection):
        if _version(connection) != 1:  # another process was first
            return
        for statement in (
            "ALTER TABLE revisions RENAME TO earlier",
            _REVISIONS,
            "INSERT INTO revisions SELECT *, '', '', NULL FROM earlier",
            "DROP TABLE earlier",
            _ENTRIES,
            f"PRAGMA user_version = {VERSION}",
        ):
            connection.execute(statement)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing; nobody else writes meanwhile (IMMEDIATE), or what is read is of one moment
    (DEFERRED)."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
