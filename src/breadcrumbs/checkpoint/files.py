"""Read a file by position, from any thread, into memory that the caller owns."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import mirrors
from breadcrumbs.errors import CheckpointError

try:
    import resource
except ImportError:  # Windows
    resource = None

_FEW, _MANY = 100, 65536
_STEP = 1 << 20


class File:
    """An open regular file. ``path``: where; ``size``: its bytes when it was opened.

    Of a mirror (`breadcrumbs.checkpoint.mirrors`), what is read is fetched first.
    """

    #: Bytes that are read in one call: macOS refuses 2 GiB or more.
    at_once = 1 << 30

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._raw = _open(self.path)
        self.size = os.fstat(self._raw.fileno()).st_size
        self._mirror = mirrors.of(self.path)

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` (bytes, contiguous) from ``offset`` on.

        Raises CheckpointError when the file has become shorter, ValueError when it is closed.
        """
        if self._mirror is not None:
            self._mirror.ensure(offset, min(offset + len(out), self.size), ahead=True)
        self._fill(offset, out)

    def _fill(self, offset: int, out: memoryview) -> None:
        done = 0
        while done < len(out):
            piece = out[done : done + self.at_once]
            try:
                count = self._read_some(offset + done, piece)
            except OSError as error:
                raise CheckpointError(f"{self.path}: cannot be read: {error.strerror}.") from None
            if count == 0:
                raise CheckpointError(
                    f"{self.path}: ends at byte {offset + done}, where byte {offset + len(out)} "
                    "was expected. It was cut off or replaced while being read."
                )
            done += count

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return ``nbytes`` bytes from ``offset`` on, raising as `read_into` does."""
        if self._mirror is not None:  # headers and the like, after which nothing may be wanted
            self._mirror.ensure(offset, min(offset + nbytes, self.size))
        out = bytearray(nbytes)
        self._fill(offset, memoryview(out))
        return bytes(out)

    def read_runs(self, offsets: Sequence[int], out: np.ndarray) -> None:
        """Fill each row of ``out`` (runs, bytes) from one of the offsets on; as `read_into`.

        Of many short runs each is read by one call, where that brings all of it.
        """
        size, read = out.shape[1], self._read_some
        if self._mirror is not None:
            for offset in offsets:
                self._mirror.ensure(offset, min(offset + size, self.size))
        for offset, row in zip(offsets, out, strict=True):
            try:
                count = read(offset, row.data)
            except OSError:
                count = 0  # said below
            if count != size:
                self.read_into(offset, row.data)

    def fileno(self) -> int:
        """Return the descriptor, for kernels that read by themselves."""
        return self._raw.fileno()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._raw.close()

    def __enter__(self) -> File:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Both forms may read less than asked, and Python itself retries interrupted calls.
    if hasattr(os, "preadv"):

        def _read_some(self, offset: int, out: memoryview) -> int:
            return os.preadv(self._raw.fileno(), [out], offset)

    else:

        def _read_some(self, offset: int, out: memoryview) -> int:
            with self._lock:
                self._raw.seek(offset)
                return self._raw.readinto(out) or 0


@dataclass(frozen=True, slots=True)
class FileRange:
    """The ``nbytes`` bytes of ``file`` from ``offset`` on: the `Bytes` of a tensor in a file."""

    file: File
    offset: int
    nbytes: int

    @property
    def stored(self) -> int:
        """See `Tensor.stored`."""
        return self.nbytes

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` from byte ``start`` of the range on; ValueError outside of the range."""
        if start < 0 or start + len(out) > self.nbytes:
            raise ValueError(f"bytes {start} to {start + len(out)} of a range of {self.nbytes}")
        self.file.read_into(self.offset + start, out)

    def read_runs(self, starts: Sequence[int], out: np.ndarray) -> None:
        """Fill each row of ``out`` (runs, bytes) from one of the ``starts`` on; as `read_into`."""
        size = out.shape[1]
        if not 0 <= min(starts, default=0) <= max(starts, default=0) <= self.nbytes - size:
            raise ValueError(f"runs of {size} bytes that begin outside of a range of {self.nbytes}")
        self.file.read_runs([self.offset + start for start in starts], out)


def runs(
    places: Sequence[tuple[Any, int]], sizes: Sequence[int]
) -> Iterator[tuple[Any, int, int, int]]:
    """Yield what lies side by side, from places (file, offset) and bytes of each.

    The file, the offset in it, where it begins among all of these bytes, and its bytes.
    """
    first: tuple[Any, int, int] | None = None
    end = at = 0
    for (file, offset), size in zip(places, sizes, strict=True):
        if first is None or file is not first[0] or offset != end:
            if first is not None:
                yield *first, at - first[2]
            first, end = (file, offset, at), offset
        end, at = end + size, at + size
    if first is not None:
        yield *first, at - first[2]


def same_bytes(one: Path, other: Path) -> bool:
    """Return whether two files hold the same bytes, which are read, up to the first difference."""
    with File(one) as first, File(other) as second:
        if first.size != second.size:
            return False
        return os.path.samefile(one, other) or all(
            first.read(start, min(_STEP, first.size - start))
            == second.read(start, min(_STEP, first.size - start))
            for start in range(0, first.size, _STEP)
        )


def _open(path: Path) -> io.FileIO:
    """Open ``path`` unbuffered; CheckpointError when that fails or it is no regular file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # asked first: opening a pipe would wait
            raise CheckpointError(f"{path}: is not a regular file.")
        raw = io.FileIO(path, "rb")
    except OSError as error:
        advice = " Allow more with `ulimit -n 65536`." if error.errno == errno.EMFILE else ""
        raise CheckpointError(f"{path}: cannot be opened: {error.strerror}.{advice}") from None
    if raw.fileno() > _FEW:
        _allow_more_files()
    return raw


def _allow_more_files() -> None:
    """Raise this process's limit of open files, as far as it may, to `_MANY`.

    200 models in shards pass the 256 (macOS) or 1024 (Linux) files that a process starts with, and
    at the limit it is too late: nothing can be listed or imported there. Windows allows 8192.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY if hard == resource.RLIM_INFINITY else min(hard, _MANY)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
