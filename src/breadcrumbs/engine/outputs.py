"""Where merged tensors go, and what is noted about each part of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

import numpy as np

from breadcrumbs.plan.units import Segment


class Output(Protocol):
    """Where merged tensors go; called from several threads.

    Entries come once, but for a few of elections, which come again and then count.
    """

    def is_done(self, segment: Segment) -> SegmentReport | None:
        """Return the report of a segment that an earlier run finished, or None."""
        ...

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        """Take entries of tensor ``index`` from ``start`` on, in the dtype of the output."""
        ...

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        """Note that all entries of the segment have been written."""
        ...

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        """Do as `write` and `finish` for segments whose values lie one after the other."""
        ...

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        """Return a copy of entries that have been written."""
        ...

    def keep(self, data: bytes) -> int | None:
        """Keep bytes, not in memory if the output is not; return where they are, None: nowhere."""
        ...

    def kept(self, at: int, size: int) -> bytes:
        """Return bytes that were kept."""
        ...


def one_by_one(
    output: Output,
    segments: Sequence[Segment],
    values: np.ndarray,
    reports: Sequence[SegmentReport],
) -> None:
    """Do as `Output.take_several`, for outputs that have no shorter way."""
    at = 0
    for segment, report in zip(segments, reports, strict=True):
        n = segment.stop - segment.start
        output.write(segment.index, segment.start, values[at : at + n])
        output.finish(segment, report)
        at += n


class Nowhere:
    """An output of nothing: for what reads and does not write."""

    def is_done(self, segment: Segment) -> SegmentReport | None:
        return None

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        pass

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        pass

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        pass

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        raise NotImplementedError

    def keep(self, data: bytes) -> int | None:
        return None

    def kept(self, at: int, size: int) -> bytes:
        raise NotImplementedError


@dataclass(frozen=True)
class Election:
    """How a segment voted on the majority of the model: the sum of its ``votes``, the majority that
    was ``elected`` when it was written, and how many entries are ``undecided`` without one."""

    votes: int
    elected: int
    undecided: int


@dataclass
class SegmentReport:
    """kept: entries that stayed of each model. squares: sum of squares of the update.

    counts: what an aggregate counted besides. election: where a majority of the model is asked for.
    """

    kept: list[int]
    squares: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    election: Election | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data, from which `of` makes it again."""
        election = astuple(self.election) if self.election else None
        counts = {"kept": self.kept, "counts": self.counts, "squares": self.squares}
        return {**counts, "election": election}

    @staticmethod
    def of(note: Mapping[str, Any]) -> SegmentReport:
        """Return the report that plain data describe."""
        election = Election(*note["election"]) if note.get("election") else None
        return SegmentReport(note["kept"], note["squares"], Counter(note["counts"]), election)


@dataclass
class TensorReport:
    """What was done to one tensor; as `SegmentReport`, for all of its entries."""

    kept: list[int]
    squares: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
