"""A table of rows from several tables: each row is read where it lies, and some are made.

The table of an embedding under another vocabulary. Nothing is held but which row comes from where,
so a merge streams it like any tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES, Tensor

#: What makes a row that no table has.
ZERO, MEAN, SEVERAL = -1, -2, -3
_STEP = 1 << 18


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the rows of a table lie. part: (n,) of each the number of its table, or `ZERO`, `MEAN`
    of all rows of the table that are of a token, or `SEVERAL`. row: (n,) the row there. several:
    by row those, as pairs (table, row), that it is the mean of. absent: (n,) which rows stand for
    none that the model has, so that its task vector is 0 there.
    """

    part: np.ndarray
    row: np.ndarray
    several: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    absent: np.ndarray | None = None

    @property
    def number(self) -> int:
        return self.part.size


@dataclass(frozen=True, eq=False)
class Gathered:
    """The bytes of a table whose rows lie in others. parts: the tables, of rows of one length."""

    rows: Rows
    parts: tuple[Tensor, ...]
    dtype: str
    width: int
    layout: str = ""
    _made: dict[int, np.ndarray] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def absent(self) -> int:
        """How many entries are in rows that the model does not have."""
        return 0 if self.rows.absent is None else int(self.rows.absent.sum()) * self.width

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``start`` on."""
        dtype = DTYPES[self.dtype]
        first, skip = divmod(start, dtype.itemsize)
        if skip or len(out) % dtype.itemsize:
            values = np.empty(-(-(start + len(out)) // dtype.itemsize) - first, dtype)
            self._fill(first, values)
            out[:] = values.view(np.uint8).data[skip : skip + len(out)]
        else:
            self._fill(first, np.frombuffer(out, np.uint8).view(dtype))

    def _fill(self, first: int, out: np.ndarray) -> None:
        """Fill ``out`` with the entries from ``first`` on, as many rows at once as lie together."""
        width, stop = self.width, first + out.size
        part, row = self.rows.part, self.rows.row
        at = first
        while at < stop:
            index, column = divmod(at, width)
            last = index + 1
            number = int(part[index])
            if number >= 0:
                most = -(-stop // width)
                near = part[index:most] == number
                near &= row[index:most] - row[index] == np.arange(most - index)
                last = index + (most - index if near.all() else int(near.argmin()))
            end = min(stop, last * width)
            here = out[at - first : end - first]
            if number >= 0:
                _read(self.parts[number], int(row[index]) * width + column, here)
            else:
                here[:] = self._row(index, number)[column : column + here.size]
            at = end

    def _row(self, index: int, how: int) -> np.ndarray:
        """Return a row that is made, in the table's dtype."""
        if how == ZERO:
            return np.zeros(self.width, DTYPES[self.dtype])
        if how == SEVERAL:
            mine = [self._of(part, row) for part, row in self.rows.several[index]]
            return (np.sum(mine, axis=0) / len(mine)).astype(DTYPES[self.dtype])
        with self._lock:
            if how not in self._made:
                self._made[how] = self._mean().astype(DTYPES[self.dtype])
            return self._made[how]

    def _of(self, part: int, row: int) -> np.ndarray:
        """Return one row of a table in float64."""
        raw = np.empty(self.width, DTYPES[self.parts[part].dtype])
        self.parts[part].read_into(row * self.width, raw)
        return raw.astype(np.float64)

    def _mean(self) -> np.ndarray:
        """Return the mean of all rows that are not `MEAN` themselves, some read at a time."""
        taken = np.flatnonzero(self.rows.part != MEAN)
        total = np.zeros(self.width)
        step = max(1, _STEP // self.width)
        for begin in range(0, taken.size, step):
            mine = taken[begin : begin + step]
            for one in np.split(mine, np.flatnonzero(np.diff(mine) != 1) + 1):
                raw = np.empty(one.size * self.width, DTYPES[self.dtype])
                self._fill(int(one[0]) * self.width, raw)
                total += raw.astype(np.float64).reshape(one.size, -1).sum(axis=0)
        return total / max(1, taken.size)


def gathered(
    tensor: Tensor, rows: Rows, parts: Sequence[Tensor], dtype: str, axis: int = 0
) -> Tensor:
    """Return the table called as ``tensor`` whose rows are ``rows`` of ``parts``.

    axis: along which they lie, the others being 1 before it.
    """
    shape = (*tensor.shape[:axis], rows.number, *tensor.shape[axis + 1 :])
    width = int(np.prod(tensor.shape[axis + 1 :], dtype=np.int64))
    source = Gathered(rows, tuple(parts), dtype, width, tensor.layout)
    return replace(tensor, dtype=dtype, shape=shape, source=source)


def _read(tensor: Tensor, start: int, out: np.ndarray) -> None:
    """Fill ``out`` with entries of a tensor, in whatever dtype that has."""
    dtype = DTYPES[tensor.dtype]
    if dtype == out.dtype:
        tensor.read_into(start, out)
        return
    for i in range(0, out.size, _STEP):
        piece = out[i : i + _STEP]
        raw = np.empty(piece.size, dtype)
        tensor.read_into(start + i, raw)
        piece[:] = raw.astype(np.float64)
