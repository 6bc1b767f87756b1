"""An output that writes weights quantised again, in blocks as the base has them.

Merged values come in segments, which do not end where blocks do, from several threads, and some of
an election come twice. They are kept in a file without a name until their tensor is whole; then its
blocks are found and written, and what it took there is free for the next one. A segment is noted in
the journal after its whole tensor is, so that a resumed merge does a tensor again or not at all.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING

import numpy as np

from breadcrumbs.checkpoint.outfile import Entry, OutFile
from breadcrumbs.checkpoint.quantised.blocks import Blocks, is_like, requantised
from breadcrumbs.checkpoint.quantised.sources import Scaled
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.errors import OutputError

if TYPE_CHECKING:
    from breadcrumbs.engine.outputs import Output, SegmentReport, one_by_one
    from breadcrumbs.plan import Plan
    from breadcrumbs.plan.units import Segment


class Layout:
    """Which entries are written for the tensors of a plan.

    entries: in order. numbers: of each tensor of the plan, its entry, or that of its codes, which
    is before that of their scales. companions: of the model that is quantised, by their entries.
    """

    def __init__(self, plan: Plan):
        self.entries: list[Entry] = []
        self.numbers: list[int] = []
        self.companions: dict[int, Tensor] = {}
        for tensor in plan.tensors:
            self.numbers.append(len(self.entries))
            it = tensor.target.source
            if isinstance(it, Scaled):
                self.entries.append(Entry(tensor.output, it.code.dtype, it.code.shape))
                name = _scale_name(tensor.output, it)
                self.entries.append(Entry(name, it.scale.dtype, it.scale.shape))
            else:
                self.entries.append(Entry(tensor.output, tensor.dtype, tensor.base.shape))
        for tensor in plan.target.companions:
            self.companions[len(self.entries)] = tensor
            self.entries.append(Entry(tensor.name, tensor.dtype, tensor.shape))


def _scale_name(name: str, it: Scaled) -> str:
    """Return what the scale of codes called ``name`` is called, as the one that is read."""
    if it.scale.name.startswith(it.code.name):
        return name + it.scale.name[len(it.code.name) :]
    return name.removesuffix("weight") + it.scale.name.rpartition(".")[2]


@dataclass
class _Open:
    """A tensor that is under way. at: where its values are. reports: of its segments."""

    at: int
    left: int
    reports: dict[int, tuple[Segment, SegmentReport]] = field(default_factory=dict)
    votes: bool = False


class SameSink:
    """Takes values, and has a `Writer` write codes and scales, and others as they are.

    others: the sink for these, which knows entries by the numbers of ``layout``.
    """

    def __init__(self, others: Output, writer: Writer, plan: Plan, layout: Layout):
        self.others, self.writer, self.plan, self.layout = others, writer, plan, layout
        self.lost = 0.0  # the sum of squares of it
        self._open: dict[int, _Open] = {}
        self._room = _Room(writer)
        self._lock = threading.Lock()
        done = Counter[int]()
        for (number, start), note in writer.done.items():
            done[number] += note["stop"] - start
        again = (i for i in range(len(plan.tensors)) if self._again(i))
        self._whole = {i for i in again if self._is_whole(i, done)}

    def _again(self, index: int) -> bool:
        """Return whether a tensor is quantised again."""
        return isinstance(self.plan.tensors[index].target.source, Scaled)

    def _is_whole(self, index: int, done: Counter[int]) -> bool:
        """Return whether an earlier run has written all of a tensor, and count what it lost.

        done: how many entries it has written.
        """
        number = self.layout.numbers[index]
        scales = self.writer.done.get((number + 1, 0))
        if scales is None or done[number] != self.plan.tensors[index].base.size:
            return False
        self.lost += scales["lost"]
        return True

    # --- an output ---

    def is_done(self, segment: Segment) -> SegmentReport | None:
        if self._again(segment.index) and segment.index not in self._whole:
            return None
        return self.others.is_done(self._numbered(segment))

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        if not self._again(index):
            self.others.write(self.layout.numbers[index], start, values)
            return
        self._room.write(self._opened(index).at + 4 * start, values)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        if not self._again(segment.index):
            self.others.finish(self._numbered(segment), report)
            return
        mine = self._opened(segment.index)
        with self._lock:
            if segment.start not in mine.reports:
                mine.left -= segment.stop - segment.start
            mine.reports[segment.start] = segment, report
            mine.votes |= report.election is not None  # may come again
            if mine.left or mine.votes:
                return
            del self._open[segment.index]
        self._quantise(segment.index, mine)

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        one_by_one(self, segments, values, reports)

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        if not self._again(index):
            return self.others.read(self.layout.numbers[index], start, n)
        return self._room.read(self._opened(index).at + 4 * start, n)

    def keep(self, data: bytes) -> int | None:
        return self.others.keep(data)

    def kept(self, at: int, size: int) -> bytes:
        return self.others.kept(at, size)

    def complete(self) -> None:
        """Write what could come again until now, tensors without entries, and companions."""
        for index, mine in list(self._open.items()):
            del self._open[index]
            if mine.left:  # a journal of other segments
                raise OutputError(
                    f"{self.writer.shown}: cannot be resumed. Give --force to begin again."
                )
            self._quantise(index, mine)
        for number, tensor in self.layout.companions.items():
            if (number, 0) in self.writer.done or not tensor.size:
                continue
            self.writer.write(number, 0, tensor.read().reshape(-1))
            self.writer.finished(number, 0, tensor.size, {})
        self._room.close()

    def close(self) -> None:
        """Give up the room; a second call does nothing."""
        self._room.close()

    # --- a tensor ---

    def _numbered(self, segment: Segment) -> Segment:
        return replace(segment, index=self.layout.numbers[segment.index])

    def _opened(self, index: int) -> _Open:
        with self._lock:
            if index not in self._open:
                size = self.plan.tensors[index].base.size
                self._open[index] = _Open(self._room.take(4 * size), size)
            return self._open[index]

    def _quantise(self, index: int, mine: _Open) -> None:
        """Write the blocks of a tensor whose values are there, and note its segments as done."""
        number = self.layout.numbers[index]
        tensor = self.plan.tensors[index].target
        it = tensor.source
        assert isinstance(it, Scaled)
        same, scales = self._given(index)
        grid, found, lost = it.grid, np.empty(it.scale.size, np.float32), 0.0
        for first, stop in grid.runs(0, tensor.size // grid.columns):
            n = (stop - first) * grid.columns
            values = self._room.read(mine.at + 4 * first * grid.columns, n)
            read = {id(one): Blocks.read(one, first, stop) for one in same}
            made, more = requantised(
                values.reshape(stop - first, grid.columns),
                [read[id(one)] for one in same],
                [read[id(one)] for one in scales],
                it.scale.dtype,
                grid.block[1],
            )
            self.writer.write(number, first * grid.columns, made.codes.reshape(-1))
            above = grid.of_row(first) * grid.across
            found[above : above + grid.across] = made.scales
            lost += more
        self._room.give(mine.at, 4 * tensor.size)
        raw = found.astype(DTYPES[it.scale.dtype])
        self.writer.write(number + 1, 0, raw)
        self.writer.finished(number + 1, 0, raw.size, {"lost": lost})
        for segment, report in mine.reports.values():
            self.writer.finished(number, segment.start, segment.stop, report.to_mapping())
        with self._lock:
            self.lost += lost

    def _given(self, index: int) -> tuple[list[Scaled], list[Scaled]]:
        """Return whose blocks are tried, for their codes and for their scales: the base's first.

        Of one model alone first its codes, so that nothing is left of the base's where both stand
        for the same.
        """
        plan = self.plan.tensors[index]
        tensors = [plan.target, plan.base, *(m for m in plan.models if m is not None)]
        sources: list[Scaled] = []
        for tensor in tensors:
            it = tensor.source
            if isinstance(it, Scaled) and is_like(tensor, plan.target) and it not in sources:
                sources.append(it)
        alone = len(self.plan.models) == 1 and plan.onto is None
        return (sources[::-1] if alone else sources), sources


class _Room:
    """Room for values in a file without a name on the disk of the output."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self._file: IO[bytes] | None = None
        self._out: OutFile | None = None
        self._end = 0
        self._free: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> int:
        """Return where there is room for ``size`` bytes."""
        with self._lock:
            for i, (at, length) in enumerate(self._free):
                if length >= size:
                    self._free[i] = at + size, length - size
                    return at
            at, self._end = self._end, self._end + size
            return at

    def give(self, at: int, size: int) -> None:
        """Give room back; room beside each other becomes one."""
        with self._lock:
            self._free = list(_joined(sorted([*self._free, (at, size)])))

    def write(self, at: int, values: np.ndarray) -> None:
        with self.writer.errors():
            self._opened().write(at, values.view(np.uint8).data.cast("B"))

    def read(self, at: int, n: int) -> np.ndarray:
        """Return n values."""
        out, done = bytearray(4 * n), 0
        with self.writer.errors():
            while done < len(out):
                piece = self._opened().read(at + done, min(1 << 30, len(out) - done))
                if not piece:
                    raise OSError("the values that were merged cannot be read again")
                out[done : done + len(piece)] = piece
                done += len(piece)
        return np.frombuffer(out, np.float32)

    def _opened(self) -> OutFile:
        with self._lock:
            if self._out is None:
                self._file = tempfile.TemporaryFile(dir=self.writer.partial)  # noqa: SIM115
                self._out = OutFile.of(self._file)
            return self._out

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _joined(free: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at, length = free[0]
    for start, size in free[1:]:
        if start == at + length:
            length += size
        else:
            if length:
                yield at, length
            at, length = start, size
    yield at, length
