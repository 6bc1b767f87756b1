"""The bytes of a quantised tensor as those of the float32 tensor that it stands for.

A value is its code times its scale, rounded once to float32. Only what is asked for is read, and
nothing is kept, so any number of threads may ask at once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES, Tensor

#: Entries that are decoded at once: with their codes they fit into the second-level cache.
PIECE = 1 << 16
#: The values of FP4 (E2M1), by code.
E2M1 = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """Which scale is of which entry: matrices of ``rows`` x ``columns`` in blocks, cut off at the
    right and at the bottom, with ``down`` x ``across`` scales each."""

    rows: int
    columns: int
    block: tuple[int, int]

    @property
    def down(self) -> int:
        return -(-self.rows // self.block[0])

    @property
    def across(self) -> int:
        return -(-self.columns // self.block[1])

    def of_row(self, row: int) -> int:
        """Return which row of scales belongs to a row, counted through all matrices."""
        matrix, inside = divmod(row, self.rows)
        return matrix * self.down + inside // self.block[0]

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield runs (first, stop) of rows that have the same scales."""
        while first < stop:
            inside = first % self.rows
            end = min(self.rows, (inside // self.block[0] + 1) * self.block[0])
            last = min(stop, first - inside + end)
            yield first, last
            first = last


@dataclass(frozen=True, eq=False)
class Coding:
    """How bytes become values. table: (256, values in a byte) float32. stride: bytes of a row,
    which may hold more values than the row has columns."""

    table: np.ndarray
    stride: int

    @property
    def each(self) -> int:
        """Values in a byte."""
        return self.table.shape[1]

    def decode(self, codes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the values (n * each,) of n bytes. out: where to write them, if that suits."""
        if out is None or not out.flags.c_contiguous or out.ctypes.data % 8:
            out = np.empty(codes.size * self.each, np.float32)
        if self.each == 2:
            np.take(self.table.view(np.uint64)[:, 0], codes, out=out.view(np.uint64), mode="clip")
            return out
        even = codes.size // 2 * 2
        if even:  # two at once, which is twice as fast
            halves = codes[:even].view(np.uint16)
            np.take(_pairs(self), halves, out=out[:even].view(np.uint64), mode="clip")
        out[even:] = self.table[codes[even:], 0]
        return out


@functools.lru_cache(maxsize=8)
def _pairs(coding: Coding) -> np.ndarray:
    """Return the values of every two bytes, as the bits of both."""
    two = np.empty((256, 256, 2), np.float32)
    two[..., 0], two[..., 1] = coding.table[None, :, 0], coding.table[:, None, 0]
    return two.view(np.uint64).reshape(-1)


def one_byte(dtype: str, columns: int, zero: int = 0) -> Coding:
    """Return how codes of one byte are read: those of a dtype, less ``zero``."""
    return Coding(_table(dtype, zero), columns)


@functools.cache
def _table(dtype: str, zero: int) -> np.ndarray:
    values = np.arange(256, dtype=np.uint8).view(DTYPES[dtype]).astype(np.float32)
    return (values - np.float32(zero)).reshape(256, 1)


def two_in_a_byte(values: np.ndarray, stride: int) -> Coding:
    """Return how codes of 4 bits are read, the low ones first. values: of the 16 codes."""
    both = np.arange(256)
    return Coding(np.stack([values[both & 15], values[both >> 4]], axis=1), stride)


def scales_of(tensor: Tensor, first: int, stop: int, across: int) -> np.ndarray:
    """Return the rows ``first`` to ``stop`` of scales, ``across`` each, in float32 or float64."""
    raw = np.empty((stop - first) * across, DTYPES[tensor.dtype])
    tensor.read_into(first * across, raw)
    if tensor.dtype == "U8":  # an exponent
        raw = raw.view(DTYPES["F8_E8M0"])
    return raw.astype(np.float64 if tensor.dtype == "F64" else np.float32).reshape(-1, across)


class Dequantised:
    """What all quantised tensors have in common as `Bytes` of float32."""

    #: What messages call it, and bytes in the file.
    layout: str
    stored: int

    def fill(self, first: int, out: np.ndarray) -> None:
        """Fill ``out`` (float32) with the values from ``first`` on."""
        raise NotImplementedError

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``start`` on."""
        first, skip = divmod(start, 4)
        if skip or len(out) % 4:
            values = np.empty(-(-(start + len(out)) // 4) - first, np.float32)
            self._fill(first, values)
            out[:] = values.view(np.uint8).data[skip : skip + len(out)]
        else:
            self._fill(first, np.frombuffer(out, np.float32))

    def _fill(self, first: int, out: np.ndarray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not a number is found later
            self.fill(first, out)


@dataclass(frozen=True, eq=False)
class Scaled(Dequantised):
    """Codes in rows with scales in a `Grid`. zero: of each block, what is taken from its codes."""

    code: Tensor
    scale: Tensor
    coding: Coding
    grid: Grid
    layout: str
    zero: Tensor | None = None

    @property
    def stored(self) -> int:
        return self.code.nbytes + self.scale.nbytes

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What is read."""
        return (self.code, self.scale, *((self.zero,) if self.zero else ()))

    def fill(self, first: int, out: np.ndarray) -> None:
        columns, at = self.grid.columns, 0
        while at < out.size:
            row, column = divmod(first + at, columns)
            left = out.size - at
            if column or left < columns or columns > PIECE:  # of one row
                n = min(left, columns - column, PIECE)
                self._part(row, column, out[at : at + n])
            else:
                rows = min(left // columns, max(1, PIECE // columns))
                n = rows * columns
                self._rows(row, out[at : at + n].reshape(rows, columns))
            at += n

    def _part(self, row: int, column: int, out: np.ndarray) -> None:
        """Fill ``out`` with a part of a row."""
        each = self.coding.each
        begin = column // each
        codes = np.empty(-(-(column + out.size) // each) - begin, np.uint8)
        self._read_codes(row * self.coding.stride + begin, codes)
        skip = column - begin * each
        out[:] = self.coding.decode(codes)[skip : skip + out.size]
        for change, factors in self._factors(row, row + 1):
            change(out, self._spread(factors[0], column, column + out.size), out=out)

    def _rows(self, first: int, out: np.ndarray) -> None:
        """Fill ``out`` with whole rows."""
        rows, columns = out.shape
        codes = np.empty(rows * self.coding.stride, np.uint8)
        self._read_codes(first * self.coding.stride, codes)
        whole = rows * columns == codes.size * self.coding.each
        values = self.coding.decode(codes, out.reshape(-1) if whole else None)
        if values.ctypes.data != out.ctypes.data:
            out[:] = values.reshape(rows, -1)[:, :columns]
        for change, factors in self._factors(first, first + rows):
            self._change_rows(change, first, out, factors)

    def _change_rows(self, change: np.ufunc, first: int, out: np.ndarray, by: np.ndarray) -> None:
        (rows, columns), (down, across) = out.shape, self.grid.block
        above = self.grid.of_row(first)
        if self.grid.across == 1:
            mine = [self.grid.of_row(row) - above for row in range(first, first + rows)]
            change(out, by[mine], out=out)
        elif down == 1 and columns % across == 0:
            blocks = out.reshape(rows, -1, across)
            change(blocks, by[:, :, None], out=blocks)
        else:
            for begin, end in self.grid.runs(first, first + rows):
                spread = self._spread(by[self.grid.of_row(begin) - above], 0, columns)
                change(
                    out[begin - first : end - first], spread, out=out[begin - first : end - first]
                )

    def _factors(self, first: int, stop: int) -> Iterator[tuple[np.ufunc, np.ndarray]]:
        """Yield what is taken from the codes of some rows, and what they are multiplied by."""
        above, below = self.grid.of_row(first), self.grid.of_row(stop - 1) + 1
        if self.zero is not None:
            raw = np.empty((below - above) * self.grid.across, DTYPES[self.zero.dtype])
            self.zero.read_into(above * self.grid.across, raw)
            yield np.subtract, raw.astype(np.float32).reshape(-1, self.grid.across)
        yield np.multiply, scales_of(self.scale, above, below, self.grid.across)

    def _spread(self, factors: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Return the factors of columns ``first`` to ``stop`` of a row, one for each or for all."""
        if factors.size == 1:
            return factors
        across = self.grid.block[1]
        begin = first // across
        mine = np.repeat(factors[begin : -(-stop // across)], across)
        return mine[first - begin * across : stop - begin * across]

    def _read_codes(self, start: int, out: np.ndarray) -> None:
        self.code.source.read_into(start, out.data)
