"""A table in an SQLite file that several processes write, and that is never trusted.

Every row carries a checksum, and one whose checksum fails is not returned. A file that is damaged
is set aside under another name, and begun anew with the rows that can still be read. A file of
something else, or of a later version, is refused and stays as it is.

The file is in WAL mode: readers and one writer at a time go on together, and a process that is
killed leaves whole transactions. It belongs on a local disk; over a network WAL does not work.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from blake3 import blake3

from breadcrumbs.checkpoint import durable
from breadcrumbs.errors import OutputError, ResultsError, counted, printable
from breadcrumbs.evaluate.results import sqlite_files as files

Values = tuple[Any, ...]
T = TypeVar("T")


def _warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


class Database:
    """The table ``rows`` of a file.

    path: a file, which is made where there is none; None is memory. columns: name -> SQL type.
    unique: the columns that no two rows share; a new row takes the place of the one before.
    added: of the columns, those that a file of version 1 lacks, and what its rows have there: such
    a file is brought to this version when it is opened. readonly: make, change and rename nothing.
    """

    def __init__(
        self,
        path: Path | None,
        columns: Mapping[str, str],
        unique: Sequence[str],
        *,
        added: Mapping[str, Any] | None = None,
        readonly: bool = False,
        warn: Callable[[str], None] = _warn,
    ):
        self._added = dict(added or {})
        before = {name: kind for name, kind in columns.items() if name not in self._added}
        self._before = ("id", *before, "checksum")
        self._schema_before = _schema(before, [name for name in unique if name in before])
        self.path, self.readonly, self.warn = path, readonly, warn
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[Any, ...] = ()
        self._told: set[int] = set()
        self._names = ("id", *columns, "checksum")
        self._schema = _schema(columns, unique)

    def write(self, rows: Sequence[Values]) -> None:
        """Write rows in one transaction: all of them or none."""
        self._run(lambda connection: self._insert(connection, rows))

    def read(self, rest: str = "", parameters: Sequence[Any] = ()) -> list[Values]:
        """Return rows in the order of writing, without those that are damaged.

        rest: what follows FROM in SQL, such as ``WHERE model = ?``.
        """

        def work(connection: sqlite3.Connection) -> list[Values]:
            sql = f"SELECT {_quoted(self._names)} FROM rows {rest} ORDER BY id"
            return connection.execute(sql, parameters).fetchall()

        found, damaged = [], set()
        for number, *values, checksum in self._run(work):
            if checksum == seal(values):
                found.append(tuple(values))
            else:
                damaged.add(number)
        if damaged - self._told:
            self._told |= damaged
            self.warn(
                f"{self.path}: rows with a wrong checksum: {len(damaged)}. They count as absent,"
                " and are computed again where they are needed."
            )
        return found

    def ask(self, sql: str, parameters: Sequence[Any] = ()) -> list[Values]:
        """Return what a query of one's own gives, unchecked."""
        return self._run(lambda connection: connection.execute(sql, parameters).fetchall())

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None and self._opened[:1] == (os.getpid(),):
                self._connection.close()
            self._connection = None

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            self._put(connection, rows)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _put(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> None:
        names = self._names[1:]
        marks = ", ".join("?" * len(names))
        sql = f"INSERT OR REPLACE INTO rows ({_quoted(names)}) VALUES ({marks})"
        connection.executemany(sql, [(*values, seal(values)) for values in rows])

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file; if that shows damage, put it in order and do it again."""
        with self._lock:
            for last in (False, True):
                try:
                    return work(self._current())
                except (files.DamagedError, sqlite3.DatabaseError) as error:
                    if not files.is_damage(error):
                        self._fail(error)
                    if last or self.path is None:
                        raise ResultsError(f"{self.path}: is damaged: {error}.") from None
                    self._mend(str(error))
            raise AssertionError

    def _fail(self, error: Exception) -> NoReturn:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise error
        busy = f" Another program has kept it for {files.WAIT:.0f} seconds."
        advice = busy if code & 0xFF == sqlite3.SQLITE_BUSY else ""
        raise OutputError(f"{self.path}: cannot be used: {error}.{advice}") from None

    # --- opening -----------------------------------------------------------------------------

    def _current(self) -> sqlite3.Connection:
        """Return a connection to the file that has the name now, in this process."""
        if self._connection is not None:
            if self.path is None or self._opened == (os.getpid(), *files.identity(self.path)):
                return self._connection
            if self._opened[:1] != (os.getpid(),):  # after a fork: the parent's, not ours to close
                _FORKED.append(self._connection)
            self.close()
        self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        path = self.path
        if path is None:
            return self._fill(sqlite3.connect(":memory:", **files.SETTINGS), ())
        with contextlib.nullcontext() if self.readonly else files.alone(path):
            if not self.readonly and not files.size(path):
                self._make(path, ())
            self._opened = (os.getpid(), *files.identity(path))
            if not files.recognised(path, self.readonly):
                raise files.DamagedError("it does not begin as a database does")
            if self._added and files.version(path) == 1:
                if self.readonly:
                    return self._fill(sqlite3.connect(":memory:", **files.SETTINGS), self._old())
                self._migrate(path)
            return files.connect(path, self._schema, readonly=self.readonly)

    def _old(self) -> list[Values]:
        """Return the rows of a file of version 1, with what they have in the columns added."""
        assert self.path is not None
        connection = files.connect(self.path, self._schema_before, readonly=True)
        with contextlib.closing(connection):
            return self._widened(connection)

    def _widened(self, connection: sqlite3.Connection) -> list[Values]:
        found = []
        sql = f"SELECT {_quoted(self._before)} FROM rows ORDER BY id"
        for _, *values, checksum in connection.execute(sql):
            if checksum == seal(values):  # one that is damaged counts as absent, as always
                known = self._added | dict(zip(self._before[1:-1], values, strict=True))
                found.append(tuple(known[name] for name in self._names[1:-1]))
        return found

    def _migrate(self, path: Path) -> None:
        """Bring a file of version 1 to this one, in one transaction: all of it, or nothing."""
        with contextlib.closing(files.connect(path, self._schema_before)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                rows = self._widened(connection)
                connection.execute("DROP TABLE rows")
                for statement in self._schema:
                    connection.execute(statement)
                self._put(connection, rows)
                connection.execute(f"PRAGMA user_version = {files.VERSION}")
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _make(self, path: Path, rows: Sequence[Values]) -> None:
        """Make a new file, which takes its name when it is whole."""
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            new.unlink(missing_ok=True)
            connection = self._fill(sqlite3.connect(new, **files.SETTINGS), rows)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            # A log is of a file that somebody removed; SQLite would take it for the new one's.
            files.rename(path, files.free_name(path), ("-wal", "-shm"))
            durable.replace(new, path)
        except (OSError, sqlite3.OperationalError) as error:
            with contextlib.suppress(OSError):
                new.unlink()
            why = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{path}: cannot be made: {why}. Give a path in a folder that can be written."
            ) from None

    def _fill(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> sqlite3.Connection:
        connection.execute(f"PRAGMA application_id = {files.APPLICATION}")
        connection.execute(f"PRAGMA user_version = {files.VERSION}")
        for statement in self._schema:
            connection.execute(statement)
        self._insert(connection, rows)
        return connection

    # --- damage ------------------------------------------------------------------------------

    def _mend(self, what: str) -> None:
        """Set the damaged file aside and begin anew, with the rows that can still be read.

        To read only, they are taken into memory instead.
        """
        path = self.path
        assert path is not None
        seen = self._opened[1:]
        self.close()
        if self.readonly:
            rows = self._left(path)
            self._connection = self._fill(sqlite3.connect(":memory:", **files.SETTINGS), rows)
            self._opened = (os.getpid(), *files.identity(path))
            self.warn(f"{path}: is damaged ({what}). {counted(len(rows), 'row')} could be read.")
            return
        with files.alone(path):
            if files.identity(path) != seen:
                return  # another process was faster
            aside = files.free_name(path)
            # The log first: beside a new file of the same name it would be taken for its own.
            try:
                files.rename(path, aside, ("-wal", "-shm", ""))
            except OSError as error:
                raise OutputError(
                    f"{path}: is damaged ({what}), and cannot be set aside: {error.strerror}. Move"
                    " it away."
                ) from None
            rows = self._left(aside)
            self._make(path, rows)
        self.warn(
            f"{path}: is damaged ({what}). It was renamed to {aside}; the new file has the"
            f" {counted(len(rows), 'row')} that could be read, and all else is computed again."
        )

    def _left(self, path: Path) -> list[Values]:
        """Return the rows of a damaged file that are whole; the file is not touched."""
        found: dict[int, Values] = {}
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            tables = [(self._names, self._schema)]
            tables += [(self._before, self._schema_before)] if self._added else []
            for (names, schema), order in itertools.product(tables, ("", "DESC")):
                # from both ends up to what is broken
                with (
                    contextlib.suppress(sqlite3.Error, files.DamagedError),
                    contextlib.closing(files.connect(copy, schema, checked=False)) as old,
                ):
                    sql = f"SELECT {_quoted(names)} FROM rows ORDER BY id {order}"
                    for number, *values, checksum in old.execute(sql):
                        if checksum == seal(values):
                            known = self._added | dict(zip(names[1:-1], values, strict=True))
                            found[number] = tuple(known[name] for name in self._names[1:-1])
        return [found[number] for number in sorted(found)]


def _schema(columns: Mapping[str, str], unique: Sequence[str]) -> list[str]:
    """Return the statements that make the table."""
    listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    # NULLs differ from each other in an index, so they are named where there are any.
    parts = (
        f'"{name}"' if "NOT NULL" in columns[name] else f"ifnull(\"{name}\", '')" for name in unique
    )
    return [
        f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {listed}, checksum TEXT)",
        f"CREATE UNIQUE INDEX one ON rows ({', '.join(parts)})",
    ]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def seal(values: Sequence[Any]) -> str:
    """Return the checksum of a row: BLAKE3 of its values and their types."""
    parts = []
    for value in values:
        if isinstance(value, bytes):
            data = value
        elif isinstance(value, float):
            data = value.hex().encode()
        else:
            data = str(value).encode(errors="surrogatepass")
        parts.append(f"{type(value).__name__} {len(data)} ".encode() + data)
    return blake3(b"".join(parts)).hexdigest(length=16)


#: Connections that were inherited by a fork: SQLite wants them neither used nor closed there.
_FORKED: list[sqlite3.Connection] = []
