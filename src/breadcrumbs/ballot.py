"""What most entries of a model elect, found while they are written.

A sum of 0 elects what most entries do, which is known only after the last. So every segment is
written as most have voted before it; of its undecided entries is kept what the other majority makes
of them; and where the last vote proves that majority wrong, these are put in their place.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from breadcrumbs.sink import Election, SegmentReport, Sink
from breadcrumbs.work import Segment


class Ballot:
    """The votes of all entries of a job. reports: of its segments, by tensor and start."""

    def __init__(self, sink: Sink):
        self.sink = sink
        self.reports: dict[tuple[int, int], SegmentReport] = {}
        self._kept: dict[tuple[int, int], tuple[int, int, float]] = {}
        self._lock, self._votes = threading.Lock(), 0

    @property
    def majority(self) -> int:
        """What most entries elect, as far as they have voted: 1, or -1 also where there is none."""
        return 1 if self._votes > 0 else -1

    def note(self, segment: Segment, report: SegmentReport) -> None:
        """Count what a segment has voted, which is written."""
        place = segment.index, segment.start
        assert report.election is not None
        with self._lock:
            before = self.reports.get(place)
            if before is not None and before.election is not None:  # it is written once more
                self._votes -= before.election.votes
            self._votes += report.election.votes
            self.reports[place] = report

    def keep(self, segment: Segment, where: np.ndarray, other: np.ndarray, more: float) -> None:
        """Keep what `Polling.add` was told of a segment."""
        at = self.sink.keep(where.astype(np.uint32).tobytes() + other.tobytes())
        if at is not None:
            self._kept[segment.index, segment.start] = at, where.size, more

    def is_wrong(self, segment: Segment) -> bool:
        """Return whether the segment was written with a majority that is none."""
        election = self.reports[segment.index, segment.start].election
        return bool(election and election.undecided and election.elected != self.majority)

    def mend(self, segment: Segment) -> SegmentReport | None:
        """Put undecided entries right; return the new report, or None where they were not kept."""
        place = segment.index, segment.start
        if place not in self._kept:
            return None
        at, number, more = self._kept[place]
        values = self.sink.read(*place, segment.stop - segment.start)
        data = self.sink.kept(at, number * (4 + values.itemsize))
        where = np.frombuffer(data, np.uint32, number)
        values[where] = np.frombuffer(data, values.dtype, offset=where.nbytes)
        self.sink.write(*place, values)
        report = self.reports[place]
        assert report.election is not None
        election = replace(report.election, elected=self.majority)
        return replace(report, squares=report.squares + more, election=election)


class Polling:
    """The votes of a segment while it is written. majority: the one it is written with."""

    def __init__(self, ballot: Ballot, segment: Segment):
        self.ballot, self.segment, self.majority = ballot, segment, ballot.majority
        self.votes = self.undecided = 0
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []
        self._more, self._known = 0.0, True

    def add(self, votes: int, where: np.ndarray, other: np.ndarray, more: float) -> None:
        """Count the votes of some entries, and keep those that are undecided.

        where: their positions in the segment. other: the weights of the output that the other
        majority makes of them. more: by how much these change the sum of squares of the update.
        """
        self.votes += votes
        self.undecided += where.size
        self._parts.append((where, other))
        self._more += more

    def add_unknown(self, votes: int, undecided: int) -> None:
        """Count votes of entries of which it is not known what the other majority makes."""
        self.votes += votes
        self.undecided += undecided
        self._known = False

    def close(self, report: SegmentReport) -> None:
        """Complete the report of the segment, and have its votes counted."""
        report.election = Election(self.votes, self.majority, self.undecided)
        if self._known and self.undecided:
            where, other = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
            self.ballot.keep(self.segment, where, other, self._more)
        self.ballot.note(self.segment, report)
