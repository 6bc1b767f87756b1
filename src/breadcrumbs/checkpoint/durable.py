"""What it takes to survive a power cut: bytes on the disk first, and then the names.

A file that is written, closed and renamed is not on the disk yet. For seconds after that a cut can
leave its name with zeros, or the old name, or neither. So whatever takes a name here is put on the
disk (`file`, `tree`) before it takes it, the folder with the name is put there after that
(`folder`), and only then what it replaces may go. `syncing(False)` leaves all of that out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import stat
import threading
from collections.abc import Collection, Iterator
from contextvars import ContextVar
from pathlib import Path

try:
    from fcntl import F_FULLFSYNC, fcntl  # type: ignore
except ImportError:  # macOS alone has it
    fcntl = None
    F_FULLFSYNC = 0

#: Bytes of a file after which those written so far are put on the disk, beside what goes on.
STEP = 16 << 20
#: What systems answer that cannot put a folder on the disk.
_CANNOT = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR}
# A context and no argument: what asks is a command, what syncs lies many calls below.
_ON: ContextVar[bool] = ContextVar("sync", default=True)


@contextlib.contextmanager
def syncing(on: bool) -> Iterator[None]:
    """Leave out within what costs time to survive a power cut, unless ``on``.

    What is left out further up stays so. Threads that are begun within do not know of it.
    """
    token = _ON.set(_ON.get() and on)
    try:
        yield
    finally:
        _ON.reset(token)


def is_on() -> bool:
    """Return whether things are put on the disk here."""
    return _ON.get()


def file(fd: int) -> None:
    """Put an open file on the disk: on the disk itself, not into its cache."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a disk without it
            fcntl(fd, F_FULLFSYNC)
            return
    os.fsync(fd)


def folder(path: str | os.PathLike[str]) -> None:
    """Put the names in a folder on the disk, where the system can."""
    if not is_on():
        return
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def tree(top: str | os.PathLike[str], leave: Collection[str] = ()) -> None:
    """Put all files in a folder and in those in it on the disk, and their names.

    leave: names right in ``top`` that do not count.
    """
    if not is_on():
        return
    mode = os.O_RDWR | getattr(os, "O_BINARY", 0) if os.name == "nt" else os.O_RDONLY
    for where, folders, names in os.walk(top, topdown=True):
        if where == os.fspath(top):
            folders[:] = [name for name in folders if name not in leave]
            names = [name for name in names if name not in leave]
        for name in names:
            path = os.path.join(where, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                fd = os.open(path, mode)
                try:
                    file(fd)
                finally:
                    os.close(fd)
        folder(where)


def mkdir(path: Path) -> None:
    """Make a folder, and those that it is in, unless they are there, for good."""
    path = Path(os.path.abspath(path))
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        folder(one.parent)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file or a folder, for good; ``source`` itself is on the disk already."""
    os.rename(source, target)
    _named(source, target)


def replace(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a file to a name that may be taken, for good; it is on the disk already."""
    os.replace(source, target)
    _named(source, target)


def swap(
    source: str | os.PathLike[str], target: str | os.PathLike[str], old: str | os.PathLike[str]
) -> None:
    """Rename a folder to the name of another, which is called ``old`` from then on.

    Stopped in between, that one is whole and has its old name or ``old``; it gets its name back
    after an error. What was called ``old`` before is removed.
    """
    shutil.rmtree(old, ignore_errors=True)
    rename(target, old)
    try:
        rename(source, target)
    except OSError:
        rename(old, target)
        raise


def empty(top: str | os.PathLike[str], leave: str) -> None:
    """Remove all in a folder but what is called ``leave``."""
    for one in list(os.scandir(top)):
        if one.is_dir(follow_symlinks=False):
            shutil.rmtree(one.path)
        elif one.name != leave:
            os.unlink(one.path)


def remove(top: str | os.PathLike[str], last: str) -> None:
    """Remove as much of a folder as can be, the file ``last`` in it at the end: a mark of whose it
    is."""
    with contextlib.suppress(OSError):
        empty(top, last)
    shutil.rmtree(top, ignore_errors=True)


def _named(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Put the folders of two names on the disk, the new name before the old one is given up."""
    parents = [Path(os.path.abspath(path)).parent for path in (target, source)]
    for parent in dict.fromkeys(parents):
        folder(parent)


class Early:
    """Puts files on the disk while they are written, so that little is left to do at the end.

    In a thread, which waits for the disk and does not compute.
    """

    def __init__(self) -> None:
        self.on = is_on()
        self._error: OSError | None = None
        self._todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def grown(self, fd: int) -> None:
        """Put an open file on the disk soon; it must stay open until `end`."""
        if not self.on:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="sync", daemon=True)
                self._thread.start()
        self._todo.put(fd)

    def end(self) -> None:
        """Stop; raise what went wrong, which the system tells only once."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._todo.put(None)
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        sync = getattr(os, "fdatasync", os.fsync)
        while (fd := self._todo.get()) is not None:
            try:
                sync(fd)
            except OSError as error:
                self._error = error
                return
