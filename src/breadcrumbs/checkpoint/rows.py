"""A table of rows from several tables: each row is read where it lies, and some are made.

The table of an embedding under another vocabulary. Nothing is held but which row comes from where,
so a merge streams it like any tensor.
"""

from __future__ import annotations

import itertools
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
        """Fill ``out`` with the entries from ``first`` on."""
        width, stop = self.width, first + out.size
        at = first
        while at < stop:
            index, column = divmod(at, width)
            number = 0 if column else (stop - at) // width
            if number:
                end = at + number * width
                self._rows(index, out[at - first : end - first].reshape(number, width))
            else:  # a part of a row
                end = min(stop, (index + 1) * width)
                here, table = out[at - first : end - first], int(self.rows.part[index])
                if table >= 0:
                    begin = int(self.rows.row[index]) * width + column
                    _read(self.parts[table], begin, here)
                else:
                    here[:] = self._row(index, table)[column : column + here.size]
            at = end

    def _rows(self, index: int, out: np.ndarray) -> None:
        """Fill ``out`` (rows, width) with the rows from ``index`` on, those that lie together in a
        table at once."""
        part = self.rows.part[index : index + len(out)]
        row = self.rows.row[index : index + len(out)]
        for number in np.unique(part).tolist():
            at = np.flatnonzero(part == number)
            if number < 0:
                for i in at.tolist():
                    out[i] = self._row(index + i, number)
                continue
            table, mine = self.parts[number], row[at]
            low, high = int(mine.min()), int(mine.max()) + 1
            runs = np.flatnonzero((np.diff(at) != 1) | (np.diff(mine) != 1)) + 1
            if runs.size and (high - low) * self.width <= _STEP:
                near = np.empty((high - low, self.width), out.dtype)
                _read(table, low * self.width, near.reshape(-1))
                out[at] = near[mine - low]
                continue
            begins = [0, *runs.tolist()]
            for begin, end in zip(begins, [*begins[1:], at.size], strict=True):
                place = int(at[begin])
                run = out[place : place + end - begin]
                _read(table, int(mine[begin]) * self.width, run.reshape(-1))

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
        taken = self.rows.part != MEAN
        ends = np.flatnonzero(np.diff(taken)) + 1
        bounds = [0, *ends.tolist(), self.rows.number]
        total, step = np.zeros(self.width), max(1, _STEP // self.width)
        for low, high in itertools.pairwise(bounds):
            for begin in range(low, high, step) if taken[low] else ():
                raw = np.empty((min(step, high - begin), self.width), DTYPES[self.dtype])
                self._rows(begin, raw)
                total += raw.astype(np.float64).sum(axis=0)
        return total / max(1, int(taken.sum()))


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
