"""SQLite files as files: whether they are ours and whole, and how they are opened and set aside."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from breadcrumbs.errors import OutputError, ResultsError, suggestion

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be renamed either
    fcntl = None

#: The version of the table, and who SQLite is told that the file belongs to. Version 2 has columns
#: more, of what a score was learned from.
VERSION = 2
APPLICATION = int.from_bytes(b"crmb", "big")
#: Seconds to wait while another process writes.
WAIT = 60.0
SETTINGS: dict[str, Any] = {
    "timeout": WAIT,
    "isolation_level": None,
    "check_same_thread": False,
}
_MAGIC = b"SQLite format 3\0"
_SUFFIXES = (".sqlite", ".sqlite3", ".db")
#: What SQLite answers when a file is not what it should be: corrupt, not a database, cut short.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}


class DamagedError(Exception):
    """The file is ours, and not what we wrote."""


def is_damage(error: Exception) -> bool:
    """Whether an error says that a file is broken, rather than in use or out of reach."""
    code = getattr(error, "sqlite_errorcode", 0)
    return (
        isinstance(error, DamagedError)
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
                f"{path}: is not a file of results. Give one that `breadcrumbs evaluate`"
                f" wrote, or a"
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
    return head[18:20] in (b"\1\1", b"\2\2")  # else SQLite would only read it, or not even that


def connect(
    path: Path, schema: Sequence[str], *, readonly: bool = False, checked: bool = True
) -> sqlite3.Connection:
    """Return a connection to an existing file; text that is no UTF-8 does not stop it.

    Raises DamagedError if its tables were not made by the statements in ``schema``, or, where it is
    checked, if they contradict each other.
    """
    where = path.absolute().as_uri()
    # Where nothing may be written, not even the log's index, only an immutable file can be read.
    fixed = readonly and not os.access(path.absolute().parent, os.W_OK)
    mode = "mode=ro&immutable=1" if fixed else "mode=rw"
    connection = sqlite3.connect(f"{where}?{mode}", uri=True, **SETTINGS)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    settings = ["trusted_schema = OFF", "cell_size_check = ON", "synchronous = NORMAL"]
    try:
        for setting in [*settings, *(["query_only = ON"] if readonly else [])]:
            connection.execute(f"PRAGMA {setting}")
        found = connection.execute("SELECT sql FROM sqlite_master").fetchall()
        if {sql for (sql,) in found} != set(schema):
            raise DamagedError("its tables are not those of results")
        if checked:  # 5 microseconds a row; a broken index hides rows without a word
            ((said,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if said != "ok":
                raise DamagedError(" ".join(said.split()))
    except sqlite3.DatabaseError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
            raise DamagedError(str(error)) from None  # in statements that are right
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def version(path: Path) -> int:
    """Return the version of the table in a file of ours; that of this program if it is damaged.

    The beginning of the file may not say it yet, where the log has what was written last.
    """
    fixed = "" if os.access(path.absolute().parent, os.W_OK) else "&immutable=1"
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{fixed}", uri=True, **SETTINGS)
        ) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return VERSION


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of the same name."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def free_name(path: Path) -> Path:
    """Return a name for what is set aside: FILE.broken, FILE.broken-2, ..."""
    number = 1
    while True:
        name = Path(f"{path}.broken" + (f"-{number}" if number > 1 else ""))
        if not any(os.path.lexists(f"{name}{suffix}") for suffix in ("", "-wal", "-shm")):
            return name
        number += 1


def rename(path: Path, aside: Path, endings: Sequence[str]) -> None:
    """Give a database, its log (-wal) and the log's index (-shm) another name, in this order."""
    for ending in endings:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{aside}{ending}")


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
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
