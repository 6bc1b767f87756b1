"""Files and folders that take their names when they are whole, and on the disk.

Each is made under a name of its own beside the one that it will have, `.NAME.TOKEN.partial`, which
is locked as long as its process lives. So two processes that write one file never meet: what has
the name in the end is all of one. What a killed process left is deleted by the next that makes
something of that name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from breadcrumbs.checkpoint import durable, locks, places
from breadcrumbs.errors import OutputError

#: Characters of the name that are part of the one beside it; names have 255 bytes at most.
_KEPT = 40
#: Seconds after which something that cannot be locked counts as left behind.
_LONG = 24 * 3600


def write(path: Path, pieces: Iterable[bytes | memoryview], *, force: bool = True) -> None:
    """Write a file. force: replace one that exists; else OutputError if there is one by then.

    What is no regular file, such as a pipe, is written to as it is.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as out:
            out.writelines(pieces)
        return
    early, left = durable.Early(), durable.STEP
    with file(path, force=force) as place, open(place, "r+b") as out:
        try:
            for piece in pieces:
                out.write(piece)
                left -= len(piece)
                if left < 0:
                    left = durable.STEP
                    out.flush()
                    early.grown(out.fileno())
        finally:
            early.end()


def write_text(path: Path, text: str, *, force: bool = True, errors: str = "strict") -> None:
    """Write a text in UTF-8, as `write` does."""
    write(path, [text.encode(errors=errors)], force=force)


@contextlib.contextmanager
def file(path: Path, *, force: bool = True) -> Iterator[Path]:
    """Yield the path of an empty file, which is called ``path`` afterwards; not after an error.

    A symbolic link stays one: what it points to is replaced. force: as of `write`.
    """
    places.refuse_output(str(path))
    path = Path(os.path.realpath(path))
    _clean(path.parent, path.name)
    place, fd = _begin(path)
    try:
        yield place
        if durable.is_on():
            durable.file(fd)
        _name(place, path, force)
    except BaseException:
        with contextlib.suppress(OSError):
            place.unlink()
        raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def folder(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder, which is called ``path`` afterwards; not after an error.

    force: replace a folder of that name that is not empty, which stays until the new one is on the
    disk; the caller has made sure that it may go. Killed in between, the next that makes
    something of that name gives it back.
    """
    path = Path(os.path.realpath(path))
    durable.mkdir(path.parent)
    with spare(path.parent, path.name) as place:
        yield place
        durable.tree(place)
        if not path.is_dir() or not any(path.iterdir()):
            _take_name(place, path)
            return
        if not force:
            raise _taken(path)
        old = path.with_name(f".{path.name}.{os.urandom(4).hex()}{_OLD}")
        fd, _ = _locked_folder(path)
        try:
            durable.swap(place, path, old)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            if fd is not None:
                os.close(fd)


@contextlib.contextmanager
def spare(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder in ``parent`` for what is made on the way to ``name``; gone afterwards.

    What killed processes left of the same is deleted first.
    """
    _clean(parent, name)
    while True:
        place = parent / _own(name)
        try:
            os.mkdir(place)
        except FileExistsError:
            continue
        fd, mine = _locked_folder(place)
        if mine:
            break
        if fd is not None:
            os.close(fd)  # somebody took it for left behind
    try:
        yield place
    finally:
        if fd is not None:
            os.close(fd)
        shutil.rmtree(place, ignore_errors=True)


_END, _OLD = ".partial", ".old.partial"


def _own(name: str) -> str:
    return f".{name[:_KEPT]}.{os.urandom(4).hex()}{_END}"


def _begin(path: Path) -> tuple[Path, int]:
    """Return a new file beside ``path``, and it open and locked."""
    while True:
        place = path.with_name(_own(path.name))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            fd = os.open(place, flags, 0o666)
        except FileExistsError:
            continue
        if locks.lock(fd) is not False and locks.is_at(fd, place):
            return place, fd
        os.close(fd)  # somebody took it for left behind


def _name(place: Path, path: Path, force: bool) -> None:
    """Give a whole file its name, for good."""
    if not force:
        try:
            os.link(place, path)
        except FileExistsError:
            raise _taken(path) from None
        except OSError as error:  # a disk without links
            if path.exists():
                raise _taken(path) from error
        else:
            durable.folder(path.parent)
            os.unlink(place)
            return
    durable.replace(place, path)


def _take_name(place: Path, path: Path) -> None:
    """Give a whole folder a name that is free, or that of an empty folder."""
    try:
        durable.rename(place, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(path) from None
        raise


def _taken(path: Path) -> OutputError:
    return OutputError(
        f"{path}: was created in the meantime. Give another output, or --force to replace it."
    )


def _clean(parent: Path, name: str) -> None:
    """Put in order what processes left that were killed while they made something of that name."""
    spare = re.compile(rf"\.{re.escape(name[:_KEPT])}\.[0-9a-f]{{8}}{re.escape(_END)}")
    old = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}{re.escape(_OLD)}")
    with contextlib.suppress(OSError):
        for left in list(os.scandir(parent)):
            with contextlib.suppress(OSError):
                if old.fullmatch(left.name) and not (parent / name).exists():
                    _if_dead(left, lambda path: durable.rename(path, parent / name))
                elif spare.fullmatch(left.name) or old.fullmatch(left.name):
                    _if_dead(left, _delete)


def _if_dead(left: os.DirEntry[str], then: Callable[[str], object]) -> None:
    """Do something with a file or folder that no process has locked."""
    flags = os.O_RDONLY if left.is_dir(follow_symlinks=False) else os.O_RDWR
    fd = os.open(left.path, flags) if locks.renames_open() else -1
    try:
        free = locks.lock(fd) if fd >= 0 else None
        if free or (free is None and time.time() - os.stat(left.path).st_mtime > _LONG):
            then(left.path)
    finally:
        if fd >= 0:
            os.close(fd)


def _delete(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _locked_folder(path: Path) -> tuple[int | None, bool]:
    """Return a folder, open and locked, and whether it is ours; None where it cannot be."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return None, not locks.renames_open() or path.exists()
    return fd, locks.lock(fd) is not False and locks.is_at(fd, path)
