"""What a transform keeps of a fine-tuning, put into blocks as the engine reads it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import IO

import numpy as np

from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.consumers import Reading
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.kernels import choose
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.units import Segment
from breadcrumbs.taskfile import writing
from breadcrumbs.taskfile.encodings import Encoding
from breadcrumbs.taskfile.encodings.exact import EXACT
from breadcrumbs.taskfile.writing import Loss

#: Why a tensor is copied that is packed whole.
WHOLE = "not a weight, but changed"


@dataclass
class _Block:
    """A block being put together. left: entries that are still to come."""

    keep: np.ndarray
    values: np.ndarray
    left: int


@dataclass(frozen=True)
class Row:
    """A finished block: its row of the table, and where its bytes lie in the spool.

    squares: of the kept entries of the task vector and of all; none where nothing was cut.
    """

    numbers: writing.Row
    at: int
    size: int
    loss: Loss
    squares: tuple[float, float] | None


class Packing(Reading):
    """A consumer that writes blocks where others merge.

    spool: where their bytes go. encoding: of the values. factors: of matrices that are packed as
    products, by the number of the tensor. rows: of finished blocks, by tensor and block.
    """

    def __init__(
        self,
        plan: Plan,
        spool: IO[bytes],
        encoding: Encoding,
        factors: dict[int, tuple[Factors, Loss]],
    ):
        self.plan, self.spool, self.encoding, self.factors = plan, spool, encoding, factors
        self.rows: dict[tuple[int, int], Row] = {}
        self._open: dict[tuple[int, int], _Block] = {}
        self._end = 0
        self._turn = threading.Lock()

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        if tensor.copied == WHOLE:
            self._whole(tensor, segment)
        return SegmentReport([0])

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        if terms.models:
            self._pack(terms, segment)
        return SegmentReport([0])

    def _whole(self, tensor: TensorPlan, segment: Segment) -> None:
        model = tensor.models[0]
        assert model is not None
        values = np.empty(segment.stop - segment.start, DTYPES[model.dtype])
        model.read_into(segment.start, values)
        self._take(segment.index, segment.start, np.ones(values.size, np.uint8), values, None)

    def _pack(self, it: Terms, segment: Segment) -> None:
        start, n = segment.start, segment.stop - segment.start
        (model,) = it.models
        rows = it.load(segment)
        it.check(rows, slice(0, 1), start)
        keep = it.context.space.buffer("keep", (n,), np.uint8)
        self._keep(it, rows, segment, keep)
        values = rows[1].view(DTYPES["BF16"]) if rows.dtype == np.uint16 else rows[1]
        base = rows[0].view(DTYPES["BF16"]) if rows.dtype == np.uint16 else rows[0]
        dtype = DTYPES[model.dtype]
        self._take(segment.index, start, keep, values.astype(dtype, copy=False), base)

    def _keep(self, it: Terms, rows, segment: Segment, keep: np.ndarray) -> None:
        """Set ``keep`` to what is packed of the rows of a segment."""
        mine = it.kernels
        cut = True
        if it.lowered.band:
            for start, n, known in it.chunks(segment):
                run = slice(start - segment.start, start - segment.start + n)
                unit, found = it.cuts_of(rows[:, run], slice(0, 1), known)
                mine.keep_band(rows[0, run], rows[1, run], unit, found[:, 0], keep[run])
        elif it.lowered.draw:
            keys, limits = it.draws_of()
            keep[:] = mine.drawn(keep.size, keys, segment.start, limits, 0)
        else:
            cut = False
        mine.changed(rows[0], rows[1], keep, cut)

    def _take(self, index: int, start: int, keep, values, base) -> None:
        """Put entries of a tensor from ``start`` on into blocks, and write those now whole."""
        size = self.plan.tensors[index].base.size
        stop = start + keep.size
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            begin, end = number * BLOCK, min((number + 1) * BLOCK, size)
            low, high = max(begin, start), min(end, stop)
            mine = slice(low - start, high - start)
            if high - low == end - begin:
                own = None if base is None else base[mine]
                self._write_block(index, number, keep[mine], values[mine], own)
                continue
            with self._turn:
                block = self._open.get((index, number))
                if block is None:
                    fresh = np.empty(end - begin, np.uint8), np.empty(end - begin, values.dtype)
                    block = self._open[index, number] = _Block(*fresh, end - begin)
            block.keep[low - begin : high - begin] = keep[mine]
            block.values[low - begin : high - begin] = values[mine]
            with self._turn:
                block.left -= high - low
                if block.left:
                    continue
                del self._open[index, number]
            self._write_block(index, number, block.keep, block.values, None)

    def _write_block(self, index: int, number: int, keep, values, base) -> None:
        """Write a whole block to the spool. base: its weights; None: they are read if needed."""
        at = self._places(keep)
        whole = self.plan.tensors[index].copied == WHOLE
        coder = EXACT if whole or self.encoding.rank else self.encoding
        cut = not whole and not self.plan.lowered.keeps_all
        lossy = not (whole or self.encoding.lossless)
        kept, weights, loss, squares = _at(values, at), None, Loss(), None
        if cut or lossy:
            base = self._base(index, number) if base is None else base
            weights = _at(base, at)
            if cut:
                squares = writing.squares(kept, weights), writing.squares(values, base)
        if not lossy:
            weights = None
        if weights is not None and not coder.lossless:  # zeros of another sign: nothing to code
            moved = np.flatnonzero(kept != weights)
            at, weights, kept = _at(at, moved), _at(weights, moved), _at(kept, moved)
        row, data = writing.block(at, keep.size, kept, weights, coder)
        if weights is not None and at.size:
            second = memoryview(data)[row[2] :]
            back = coder.decode(row[3], second, at.size, values.dtype, weights)
            loss = writing.loss(kept, back, weights)
        with self._turn:
            where, self._end = self._end, self._end + len(data)
            self.spool.seek(where)
            self.spool.write(data)
        self.rows[index, number] = Row(row, where, len(data), loss, squares)

    def _places(self, keep: np.ndarray) -> np.ndarray:
        """Return where entries are kept, (k,) uint32."""
        found = np.empty(np.count_nonzero(keep), np.uint32)
        choose().places(keep, found)
        return found

    def _base(self, index: int, number: int) -> np.ndarray:
        tensor = self.plan.tensors[index].base
        n = min(BLOCK, tensor.size - number * BLOCK)
        weights = np.empty(n, DTYPES[tensor.dtype])
        tensor.read_into(number * BLOCK, weights)
        return weights


def _at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the values at ascending places, which may be all."""
    if places.size == values.size:
        return values
    if values.itemsize not in (2, 4):
        return values[places]
    out, raw = np.empty(places.size, values.dtype), f"u{values.itemsize}"
    choose().take(values.view(raw), places, out.view(raw))
    return out
