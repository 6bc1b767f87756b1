"""Locks on open files, which end with the process however that ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


def renames_open() -> bool:
    """Return whether a file that is open, or a folder that holds one, can be renamed or deleted."""
    return fcntl is not None


def lock(fd: int) -> bool | None:
    """Lock an open file until it is closed; False if another process has locked it.

    None where nothing can be locked: a disk that knows no locks, a folder on Windows.
    """
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(fd, 0x7FFF0000, os.SEEK_SET)  # far behind the end: it also keeps readers out
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore
            os.lseek(fd, 0, os.SEEK_SET)
    except ImportError:  # neither
        return None
    except OSError as error:
        return False if error.errno in _HELD else None
    return True


def is_at(fd: int, path: str | os.PathLike[str]) -> bool:
    """Return whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(Path(path)))
    except FileNotFoundError:
        return False
