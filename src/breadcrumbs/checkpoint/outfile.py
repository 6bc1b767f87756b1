"""Files of safetensors that are written by position: their tensors, headers and shards."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from breadcrumbs.checkpoint import digests, durable
from breadcrumbs.checkpoint.layout import Layout, Place
from breadcrumbs.checkpoint.tensors import DTYPES, bits


@dataclass(frozen=True)
class Entry:
    """A tensor to write: its name, dtype (safetensors name) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @cached_property
    def nbytes(self) -> int:
        return self.bytes_of(math.prod(self.shape))

    def bytes_of(self, n: int) -> int:
        """Return the bytes of n entries, which end where a byte does."""
        return n * bits(self.dtype) // 8


def shards(entries: Sequence[Entry], shard_size: int | None) -> list[list[int]]:
    """Return the numbers of the entries of each file, in order, none above ``shard_size`` bytes.

    A tensor larger than that has a file of its own. None: one file.
    """
    files: list[list[int]] = [[]]
    used = 0
    for number, entry in enumerate(entries):
        if shard_size is not None and files[-1] and used + entry.nbytes > shard_size:
            files.append([])
            used = 0
        files[-1].append(number)
        used += entry.nbytes
    return files


def groups(
    entries: Sequence[Entry], layout: Layout, shard_size: int | None
) -> list[tuple[Place, str, list[int], list[Entry]]]:
    """Return of each file its place and name, the numbers of its entries, and these there."""
    by_place: dict[Place, list[int]] = {}
    there = []
    for number, entry in enumerate(entries):
        place, name = layout.split(entry.name)
        by_place.setdefault(place, []).append(number)
        there.append(entry if name == entry.name else replace(entry, name=name))
    result = []
    for place, numbers in (by_place or {Place(): []}).items():
        found = shards([there[i] for i in numbers], shard_size)
        for at, shard in enumerate(found):
            group = [numbers[i] for i in shard]
            name = place.file(at, len(found))
            result.append((place, name, group, [there[i] for i in group]))
    return result


def index(files: Mapping[str, Sequence[Entry]], said: Mapping[str, str] | None) -> str:
    """Return the index of several files of a place. said: the digest of each."""
    about: dict[str, Any] = {
        "total_size": sum(entry.nbytes for found in files.values() for entry in found)
    }
    if said is not None:
        about[digests.FILES] = dict(said)
    where = {entry.name: name for name, found in files.items() for entry in found}
    return json.dumps({"metadata": about, "weight_map": where}, indent=2) + "\n"


def header(entries: Sequence[Entry], metadata: dict[str, str]) -> bytes:
    """Return the bytes before the data: length, JSON, and spaces up to a multiple of 8.

    What is not Unicode in the metadata (a path of stray bytes) becomes ``?``.
    """
    described: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for entry in entries:
        described[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [offset, offset + entry.nbytes],
        }
        offset += entry.nbytes
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False)
    data = text.encode(errors="replace")
    data += b" " * (-len(data) % 8)
    return len(data).to_bytes(8, "little") + data


class OutFile:
    """A file of known size, written by position from any thread. What it held stays.

    early: puts it on the disk meanwhile, if it is to last.
    """

    def __init__(self, path: Path, size: int, early: durable.Early | None):
        self.path, self._lock = path, threading.Lock()
        self._early, self._left = early, durable.STEP
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            os.ftruncate(self._fd, size)
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, file: IO[bytes]) -> OutFile:
        """Return an open file as one, which remains its owner's."""
        out = cls.__new__(cls)
        out.path, out._lock, out._fd = Path(str(file.name)), threading.Lock(), file.fileno()
        out._early, out._left = None, 0
        return out

    def write(self, offset: int, data: memoryview) -> None:
        self._left -= len(data)  # as good as exact: threads may get into each other's way
        if self._left < 0 and self._early is not None:
            self._left = durable.STEP
            self._early.grown(self._fd)
        while data:
            if hasattr(os, "pwrite"):
                done = os.pwrite(self._fd, data, offset)
            else:
                with self._lock:
                    os.lseek(self._fd, offset, os.SEEK_SET)
                    done = os.write(self._fd, data)
            data, offset = data[done:], offset + done

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._fd, size, offset)
        with self._lock:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.read(self._fd, size)

    def sync(self) -> None:
        """Put it on the disk."""
        durable.file(self._fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
