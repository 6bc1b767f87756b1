"""A table in an SQLite file that several processes write, and that is never trusted.

Every row carries a checksum, and one whose checksum fails is not returned. A file that is damaged
is set aside under another name, and begun anew with the rows that can still be read. A file of
something else, or of a later version, is refused and stays as it is.

The file is in WAL mode: readers and one writer at a time go on together, and a process that is
killed leaves whole transactions. It belongs on a local disk; over a network WAL does not work.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from breadcrumbs.errors import OutputError, ResultsError, printable, suggestion

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be renamed either
    fcntl = None

#: The version of the table, and who SQLite is told that the file belongs to.
VERSION = 1
APPLICATION = int.from_bytes(b"crmb", "big")
_MAGIC = b"SQLite format 3\0"
_SUFFIXES = (".sqlite", ".sqlite3", ".db")
_WAIT = 60.0
#: What SQLite answers when a file is not what it should be: corrupt, not a database, cut short.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}

Values = tuple[Any, ...]
T = TypeVar("T")


class _DamagedError(Exception):
    """The file is ours, and not what we wrote."""


def _warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


class Database:
    """The table ``rows`` of a file.

    path: a file, which is made where there is none; None is memory. columns: name -> SQL type.
    unique: the columns that no two rows share; a new row takes the place of the one before.
    readonly: make, change and rename nothing.
    """

    def __init__(
        self,
        path: Path | None,
        columns: Mapping[str, str],
        unique: Sequence[str],
        *,
        readonly: bool = False,
        warn: Callable[[str], None] = _warn,
    ):
        self.path, self.columns, self.readonly, self.warn = path, columns, readonly, warn
        self.unique = unique
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[Any, ...] = ()
        self._told: set[int] = set()

    def write(self, rows: Sequence[Values]) -> None:
        """Write rows in one transaction: all of them or none."""
        self._run(lambda connection: self._insert(connection, rows))

    def read(self, rest: str = "", parameters: Sequence[Any] = ()) -> list[Values]:
        """Return rows in the order of writing, without those that are damaged.

        rest: what follows FROM in SQL, such as ``WHERE model = ?``.
        """

        def work(connection: sqlite3.Connection) -> list[Values]:
            sql = (
                f"SELECT {_quoted((*self.columns, 'checksum', 'id'))} FROM rows {rest} ORDER BY id"
            )
            return connection.execute(sql, parameters).fetchall()

        found, damaged = [], set()
        for *values, checksum, number in self._run(work):
            if checksum == seal(values):
                found.append(tuple(values))
            else:
                damaged.add(number)
        if damaged - self._told:
            self._told |= damaged
            self.warn(
                f"{self.path}: {len(damaged)} of its rows are not what was written (the checksum"
                " differs) and count as absent. They are computed again where they are needed."
            )
        return found

    def ask(self, sql: str) -> list[Values]:
        """Return what a query of one's own gives, unchecked."""
        return self._run(lambda connection: connection.execute(sql).fetchall())

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None and self._opened[:1] == (os.getpid(),):
                self._connection.close()
            self._connection = None

    def _insert(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> None:
        names = (*self.columns, "checksum")
        marks = ", ".join("?" * len(names))
        sql = f"INSERT OR REPLACE INTO rows ({_quoted(names)}) VALUES ({marks})"
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(sql, [(*values, seal(values)) for values in rows])
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the file; if that shows damage, put it in order and do it again."""
        with self._lock:
            for last in (False, True):
                try:
                    return work(self._current())
                except (_DamagedError, sqlite3.DatabaseError) as error:
                    if not is_damage(error):
                        raise self._failed(error) from None
                    if last or self.path is None:
                        raise ResultsError(f"{self.path}: is damaged: {error}.") from None
                    self._mend(str(error))
            raise AssertionError

    def _failed(self, error: Exception) -> OutputError:
        advice = ""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == 5:
            advice = f" Another program has kept it for {_WAIT:.0f} seconds."
        return OutputError(f"{self.path}: cannot be used: {error}.{advice}")

    # --- opening -----------------------------------------------------------------------------

    def _current(self) -> sqlite3.Connection:
        """Return a connection to the file that has the name now, in this process."""
        if self._connection is not None:
            if self.path is None or self._opened == (os.getpid(), *_identity(self.path)):
                return self._connection
            if self._opened[:1] != (os.getpid(),):  # after a fork: the parent's, not ours to close
                _FORKED.append(self._connection)
            self.close()
        self._connection = self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        path = self.path
        if path is None:
            return self._fill(sqlite3.connect(":memory:", **_SETTINGS), ())
        if not self.readonly and not _size(path):
            with _alone(path):
                if not _size(path):
                    self._make(path, ())
        self._opened = (os.getpid(), *_identity(path))
        if not recognised(path, self.readonly):
            raise _DamagedError("it does not begin as a database does")
        connection = connect(path, self.readonly)
        try:
            names = [name for _, name, *_ in connection.execute("PRAGMA table_info(rows)")]
        except sqlite3.DatabaseError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise _DamagedError(str(error)) from None
            raise
        if names != ["id", *self.columns, "checksum"]:
            connection.close()
            raise _DamagedError("it has no table of rows")
        return connection

    def _make(self, path: Path, rows: Sequence[Values]) -> None:
        """Make a new file, which takes its name when it is whole."""
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            new.unlink(missing_ok=True)
            connection = self._fill(sqlite3.connect(new, **_SETTINGS), rows)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            leftover = [Path(f"{path}-wal"), Path(f"{path}-shm")]
            if any(map(os.path.lexists, leftover)):  # of a file that somebody removed
                _rename(leftover, _free(path))
            os.replace(new, path)
        except (OSError, sqlite3.OperationalError) as error:
            new.unlink(missing_ok=True)
            why = getattr(error, "strerror", None) or error
            raise OutputError(
                f"{path}: cannot be made: {why}. Give a path in a folder that can be written."
            ) from None

    def _fill(self, connection: sqlite3.Connection, rows: Sequence[Values]) -> sqlite3.Connection:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.columns.items())
        # NULLs differ from each other in an index, so they are named.
        unique = ", ".join(f"ifnull(\"{name}\", '')" for name in self.unique)
        for statement in (
            f"PRAGMA application_id = {APPLICATION}",
            f"PRAGMA user_version = {VERSION}",
            f"CREATE TABLE rows (id INTEGER PRIMARY KEY, {columns}, checksum TEXT)",
            f"CREATE UNIQUE INDEX one ON rows ({unique})",
        ):
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
            self._connection = self._fill(sqlite3.connect(":memory:", **_SETTINGS), rows)
            self._opened = (os.getpid(), *_identity(path))
            self.warn(f"{path}: is damaged ({what}). {len(rows)} of its rows could be read.")
            return
        with _alone(path):
            if _identity(path) != seen:
                return  # another process was faster
            aside = _free(path)
            # The log first: beside a new file of the same name it would be taken for its own.
            try:
                _rename([Path(f"{path}-wal"), Path(f"{path}-shm"), path], aside)
            except OSError as error:
                raise OutputError(
                    f"{path}: is damaged ({what}), and cannot be set aside: {error.strerror}. Move"
                    " it away."
                ) from None
            rows = self._left(aside)
            self._make(path, rows)
        self.warn(
            f"{path}: is damaged ({what}). It is called {aside} now; the new file has the"
            f" {len(rows)} rows that could be read, all else is computed again."
        )

    def _left(self, path: Path) -> list[Values]:
        """Return the rows of a damaged file that are whole; the file is not touched."""
        found: dict[int, Values] = {}
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            for suffix in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
            for order in ("", "DESC"):  # from both ends up to what is broken
                with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(copy)) as old:
                    names = _quoted((*self.columns, "checksum", "id"))
                    for row in old.execute(f"SELECT {names} FROM rows ORDER BY id {order}"):
                        *values, checksum, number = row
                        if checksum == seal(values):
                            found[number] = tuple(values)
        return [found[number] for number in sorted(found)]


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


def is_damage(error: Exception) -> bool:
    """Whether an error says that a file is broken, rather than in use or out of reach."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (
        isinstance(error, _DamagedError)
        or code & 0xFF in _DAMAGE
        or code == sqlite3.SQLITE_IOERR_SHORT_READ
    )


def recognised(path: Path, readonly: bool) -> bool:
    """Whether a file begins as one of ours does, or is one of ours whose beginning is damaged.

    Raises ResultsError for what is something else, or of a later version.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(100)
    except OSError as error:
        advice = suggestion(path.name, _names(path.parent)) or " `breadcrumbs evaluate` writes one."
        raise ResultsError(f"{path}: cannot be opened: {error.strerror}.{advice}") from None
    if not head.startswith(_MAGIC) or len(head) < 100:
        if readonly or path.suffix not in _SUFFIXES:
            raise ResultsError(
                f"{path}: is no file of results. Give one that `breadcrumbs evaluate` wrote, or a"
                " new name."
            )
        return False
    version, owner = (int.from_bytes(head[at : at + 4], "big") for at in (60, 68))
    if owner != APPLICATION:
        raise ResultsError(
            f"{path}: is a database of another program, not one of results. Give another name."
        )
    if version > VERSION:
        raise ResultsError(
            f"{path}: was written by a later breadcrumbs (version {version} of the table; this one"
            f" knows {VERSION}). Update breadcrumbs, or give another name."
        )
    return True


_SETTINGS: dict[str, Any] = {
    "timeout": _WAIT,
    "isolation_level": None,
    "check_same_thread": False,
}
#: Connections that were inherited by a fork: SQLite wants them neither used nor closed there.
_FORKED: list[sqlite3.Connection] = []


def connect(path: Path, readonly: bool = False) -> sqlite3.Connection:
    """Return a connection to an existing file; text that is no UTF-8 does not stop it."""
    where = path.absolute().as_uri()
    # Where nothing may be written, not even the log's index, only an immutable file can be read.
    fixed = readonly and not os.access(path.absolute().parent, os.W_OK)
    mode = "mode=ro&immutable=1" if fixed else "mode=rw"
    connection = sqlite3.connect(f"{where}?{mode}", uri=True, **_SETTINGS)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    settings = ["trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL"]
    try:
        for setting in [*settings, *(["query_only = ON"] if readonly else [])]:
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of the same name."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _free(path: Path) -> Path:
    """Return a name for what is set aside: FILE.broken, FILE.broken-2, ..."""
    number = 1
    while True:
        name = Path(f"{path}.broken" + (f"-{number}" if number > 1 else ""))
        if not any(os.path.lexists(f"{name}{suffix}") for suffix in ("", "-wal", "-shm")):
            return name
        number += 1


def _rename(files: Sequence[Path], aside: Path) -> None:
    for file in files:
        suffix = file.name[-4:] if file.name.endswith(("-wal", "-shm")) else ""
        with contextlib.suppress(FileNotFoundError):
            os.rename(file, f"{aside}{suffix}")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from making or renaming files in the same folder meanwhile."""
    if fcntl is None:
        yield
        return
    try:
        folder = os.open(path.absolute().parent, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made: {error.strerror}.") from None
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
