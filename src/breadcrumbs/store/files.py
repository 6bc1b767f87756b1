"""The files of a store: task files by content hash, each given its place when it is whole."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from blake3 import blake3

from breadcrumbs.errors import StoreError

TASKS, SUMS, SPARE, LEDGER = "tasks", "sums", "tmp", "ledger.sqlite"
_STEP = 8 << 20
#: Seconds after which what a killed process left behind is deleted.
_OLD = 24 * 3600
_HASH = re.compile(r"[0-9a-f]{64}")


def place(folder: Path, digest: str) -> Path:
    """Return where the task file of that hash is."""
    if not _HASH.fullmatch(digest):
        raise StoreError(f"{folder}: {digest!r} is no hash of a task file.")
    return folder / TASKS / f"{digest}.safetensors"


def digest_of(path: Path) -> str:
    """Return the BLAKE3 of a file."""
    hasher = blake3(max_threads=blake3.AUTO)
    try:
        with open(path, "rb") as file:
            while piece := file.read(_STEP):
                hasher.update(piece)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}.") from None
    return hasher.hexdigest()


def copy(source: IO[bytes], path: Path, nbytes: int | None = None) -> str:
    """Copy what is left of an open file, or so many bytes; return the BLAKE3 of it."""
    hasher = blake3()
    left = nbytes if nbytes is not None else -1
    with open(path, "wb") as out:
        while left and (piece := source.read(_STEP if left < 0 else min(_STEP, left))):
            hasher.update(piece)
            out.write(piece)
            left -= len(piece) if left > 0 else 0
    if left > 0:
        raise StoreError(f"{path.name}: ends {left} bytes too early. The archive is not whole.")
    return hasher.hexdigest()


def keep(folder: Path, path: Path, digest: str) -> Path:
    """Move a whole task file to its place, on the disk for good; return that."""
    target = place(folder, digest)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    os.replace(path, target)
    sync(target.parent)
    return target


def sync(folder: Path) -> None:
    """Put the names of the files of a folder on the disk, where the system can."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextlib.contextmanager
def spare(folder: Path) -> Iterator[Path]:
    """A folder for files that are not whole yet, on the same disk; gone afterwards."""
    parent = folder / SPARE
    try:
        parent.mkdir(exist_ok=True)
        for old in parent.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > _OLD:
                    shutil.rmtree(old)
        mine = Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written to: {error.strerror}.") from None
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """A folder in which a store is made, and which takes its name when it is whole."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder}: exists and is not empty. Give another folder.")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror}.") from None
    try:
        (making / TASKS).mkdir()
        making.chmod(0o755)
        yield making
        if folder.exists():
            folder.rmdir()
        os.rename(making, folder)
        sync(folder.absolute().parent)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror or error}.") from None
    finally:
        if making.exists():
            shutil.rmtree(making, ignore_errors=True)
