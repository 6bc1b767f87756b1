"""What most entries of a model elect, found while they are written.

A sum of 0 elects what most entries do, which is known only after the last. So every segment is
written as most have voted before it; of its undecided entries is kept what the other majority makes
of them; and where the last vote proves that majority wrong, these are put in their place.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from breadcrumbs.engine.merged import Undecided
from breadcrumbs.engine.outputs import Election, Output, SegmentReport
from breadcrumbs.plan.units import Segment


class Ballot:
    """The votes of all entries of a job. reports: of its segments, by tensor and start."""

    def __init__(self, output: Output):
        self.output = output
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

    def take(self, segment: Segment, undecided: Undecided, report: SegmentReport) -> None:
        """Complete the report of a segment that is written, count its votes, and keep what the
        other majority would make of it."""
        report.election = Election(undecided.votes, undecided.elected, undecided.number)
        if undecided.where and undecided.number:
            where, other = np.concatenate(undecided.where), np.concatenate(undecided.other)
            at = self.output.keep(where.astype(np.uint32).tobytes() + other.tobytes())
            if at is not None:
                self._kept[segment.index, segment.start] = at, where.size, undecided.more
        self.note(segment, report)

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
        values = self.output.read(*place, segment.stop - segment.start)
        data = self.output.kept(at, number * (4 + values.itemsize))
        where = np.frombuffer(data, np.uint32, number)
        values[where] = np.frombuffer(data, values.dtype, offset=where.nbytes)
        self.output.write(*place, values)
        report = self.reports[place]
        assert report.election is not None
        election = replace(report.election, elected=self.majority)
        return replace(report, squares=report.squares + more, election=election)
