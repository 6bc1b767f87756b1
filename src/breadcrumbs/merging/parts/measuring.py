"""Inner products of one shard, and ballots whose outcome is known or guessed beforehand."""

from __future__ import annotations

from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Nowhere, SegmentReport
from breadcrumbs.merging import calibration
from breadcrumbs.merging.parts.dealing import Deal, Shard
from breadcrumbs.plan import Plan
from breadcrumbs.plan.units import Segment


class Settled(Ballot):
    """A ballot whose outcome is given."""

    def __init__(self, way: int):
        super().__init__(Nowhere())
        self._way = way

    @property
    def majority(self) -> int:
        return self._way

    def note(self, segment: Segment, report: SegmentReport) -> None:
        pass

    def is_wrong(self, segment: Segment) -> bool:
        return False


class Measuring(calibration.Products):
    """Inner products of one shard."""

    def __init__(self, plan: Plan, deal: Deal, shard: Shard, way: int):
        super().__init__(plan)
        self._mine = {i for i, t in enumerate(plan.tensors) if deal.owner[t.name] == shard.number}
        self._way = way
        self.votes = self.undecided = 0

    def done(self, segment: Segment) -> SegmentReport | None:
        if segment.index in self._mine:
            return None
        return SegmentReport([0] * len(self.plan.models))

    def ballot(self) -> Ballot:
        return Settled(self._way)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        with self._lock:
            if report.election is not None:
                self.votes += report.election.votes
                self.undecided += report.election.undecided
