"""The room that arithmetic works in: raw weights read into arrays of the thread that asks."""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from breadcrumbs.checkpoint.files import File, FileRange, runs
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.plan import USUAL

#: Entries that are read at once where a tensor has another dtype than the job.
SIDE = USUAL.chunk


class Offered(Protocol):
    """What takes the bytes that are read, to hash them on the way."""

    def offer(self, tensor: Tensor, start: int, raw: np.ndarray) -> None: ...
    def offer_bytes(self, file: File, at: int, raw: np.ndarray) -> None: ...


class Workspace:
    """Arrays that are kept from one segment to the next, those of each thread its own.

    offered: is given what is read as it lies in files.
    """

    def __init__(self, offered: Offered | None = None):
        self.offered = offered
        self._local = threading.local()

    def load(self, tensors: Sequence[Tensor], start: int, n: int, dtype: np.dtype) -> np.ndarray:
        """Return raw rows (tensors, n) with the entries from ``start`` on.

        They stay in this thread's arena, so that asking for them again costs nothing, and are
        offered on the way. Not to be changed.
        """
        asked = ([id(tensor) for tensor in tensors], start, n, dtype)
        rows = self.buffer("arena", (len(tensors), n), dtype)
        if self._local.__dict__.get("held") != asked:
            self._local.held = None
            side = self.buffer("side", (SIDE,), np.float64)
            for row, tensor in zip(rows, tensors, strict=True):
                read_raw(tensor, start, row, side)
                if self.offered is not None and as_is(tensor, dtype):
                    self.offered.offer(tensor, start, row)
            self._local.held = asked
        return rows

    def load_ranges(self, ranges: Sequence[Sequence[FileRange]], dtype: np.dtype) -> np.ndarray:
        """Return raw rows that each hold some ranges of files, one after the other.

        Of that dtype as they lie. What lies side by side in a file is read at once, and offered.
        """
        sizes = [one.nbytes for one in ranges[0]]
        rows = self.buffer("arena", (len(ranges), sum(sizes) // dtype.itemsize), dtype)
        self._local.held = None
        for row, mine in zip(rows, ranges, strict=True):
            raw = row.view(np.uint8)
            for file, offset, at, size in runs([(one.file, one.offset) for one in mine], sizes):
                piece = raw[at : at + size]
                file.read_into(offset, piece.data)
                if self.offered is not None:
                    self.offered.offer_bytes(file, offset, piece)
        return rows

    def read(self, tensors: Sequence[Tensor], start: int, rows: np.ndarray) -> None:
        """Fill raw ``rows``, one for each tensor, with the entries from ``start`` on."""
        side = self.buffer("side", (SIDE,), np.float64)
        for row, tensor in zip(rows, tensors, strict=True):
            read_raw(tensor, start, row, side)

    def read_runs(self, tensors: Sequence[Tensor], starts: Sequence[int], rows: np.ndarray) -> None:
        """Fill raw ``rows`` (tensors, runs, entries) with the runs that begin at ``starts``."""
        side = self.buffer("side", (SIDE,), np.float64)
        for row, tensor in zip(rows, tensors, strict=True):
            if as_is(tensor, row.dtype):
                tensor.read_runs(starts, row)
                continue
            for start, run in zip(starts, row, strict=True):
                read_raw(tensor, start, run, side)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return this thread's buffer of that name, grown if needed; its content is undefined."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        buffers = self._local.__dict__
        if name not in buffers or buffers[name].size < nbytes:
            buffers[name] = mapped(nbytes, np.dtype(np.uint8))
        return buffers[name][:nbytes].view(dtype).reshape(shape)


def as_is(tensor: Tensor, dtype: np.dtype) -> bool:
    """Return whether the tensor's bytes are its raw weights of that dtype."""
    return DTYPES[tensor.dtype] == dtype or (tensor.dtype == "BF16" and dtype == np.uint16)


def read_raw(tensor: Tensor, start: int, out: np.ndarray, side: np.ndarray) -> None:
    """Fill ``out``, of a job's dtype, with the tensor's entries from ``start`` on.

    side: (S,) float64, to read into where the tensor's dtype is not that of ``out``.
    """
    if as_is(tensor, out.dtype):
        tensor.read_into(start, out)
        return
    for i in range(0, out.size, side.size):
        piece = out[i : i + side.size]
        narrow = side.view(DTYPES[tensor.dtype])[: piece.size]
        tensor.read_into(start + i, narrow)
        piece[:] = narrow


def mapped(n: int, dtype: np.dtype) -> np.ndarray:
    """Return an array (n,) of undefined content in a map of its own.

    It is resident only as far as it is used, and given back at once; what the allocator hands out
    may be neither.
    """
    return np.frombuffer(mmap.mmap(-1, max(1, n * dtype.itemsize)), dtype, n)


def one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which a product or decomposition of matrices uses the thread it runs in.

    Threads of NumPy's linear algebra wait for the cores that those of the merge are on: with two
    busy cores `wudi` took ten times as long. And what they round to may depend on their number.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")
