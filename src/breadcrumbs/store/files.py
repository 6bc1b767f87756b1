"""The files of a store: task files by content hash, each given its place when it is whole."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from blake3 import blake3

from breadcrumbs.checkpoint import durable, whole
from breadcrumbs.errors import OutputError, StoreError

TASKS, SUMS, SPARE, LEDGER = "tasks", "sums", "tmp", "ledger.sqlite"
_STEP = 8 << 20
_HASH = re.compile(r"[0-9a-f]{64}")


def place(folder: Path, digest: str) -> Path:
    """Return where the task file of that hash is."""
    if not _HASH.fullmatch(digest):
        raise StoreError(f"{folder}: {digest!r} is not a hash of a task file.")
    return folder / TASKS / f"{digest}.safetensors"


def is_store(folder: str | Path) -> bool:
    """Return whether a path is a store's."""
    return (Path(folder) / LEDGER).is_file()


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
    if durable.is_on():
        with open(path, "r+b") as file:
            durable.file(file.fileno())
    durable.replace(path, target)
    return target


@contextlib.contextmanager
def spare(folder: Path) -> Iterator[Path]:
    """A folder for files that are not whole yet, on the same disk; gone afterwards."""
    parent = folder / SPARE
    with contextlib.ExitStack() as stack:
        try:
            parent.mkdir(exist_ok=True)
            mine = stack.enter_context(whole.spare(parent, "store"))
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written to: {error.strerror}.") from None
        yield mine


@contextlib.contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """A folder in which a store is made, and which takes its name when it is whole."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder}: exists and is not empty. Give another folder.")
    try:
        with whole.folder(folder, force=False) as making:
            (making / TASKS).mkdir()
            yield making
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror or error}.") from None
    except OutputError:
        raise StoreError(f"{folder}: was created in the meantime. Give another folder.") from None
