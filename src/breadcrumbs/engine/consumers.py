"""What is done with merged segments: written, unless the consumer is another one.

A consumer is told of every segment, from any thread, and says what was done to it. So packing,
comparing and measuring are consumers, and none of them knows how a tensor is merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from breadcrumbs.engine import routes
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import Output, SegmentReport
from breadcrumbs.engine.replay import Steps
from breadcrumbs.engine.terms import Terms
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.units import Segment, repeats


class Consumer(Protocol):
    """What a merge is run for. Called from several threads."""

    #: Whether it takes what `routes.merge` makes of every segment.
    merges: bool
    #: Whether it takes small tensors several at a time (`take_several`), however they are merged.
    several: bool

    def done(self, segment: Segment) -> SegmentReport | None:
        """Return the report of a segment that an earlier run finished, or None."""
        ...

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        """Take a segment of what is merged. ballot: where the majority of the model has a say."""
        ...

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        """Take merged segments whose values lie one after the other, and note that these were."""
        ...

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        """Take a segment of a tensor that is not merged."""
        ...

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        """Note that all of the segment was taken."""
        ...

    def ballot(self) -> Ballot:
        """Return the ballot of a model whose majority has a say."""
        ...

    def end(self, plan: Plan) -> None:
        """Do what comes when all segments are there."""
        ...


class Reading:
    """A consumer that looks at segments and writes none; the base of others."""

    merges = several = False

    def done(self, segment: Segment) -> SegmentReport | None:
        return None

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        raise NotImplementedError

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        raise NotImplementedError

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        return SegmentReport([0] * len(context.plan.models))

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        pass

    def ballot(self) -> Ballot:
        raise NotImplementedError

    def end(self, plan: Plan) -> None:
        pass


class Writing:
    """The consumer that writes. steps: where to keep the steps before their factor."""

    merges = several = True

    def __init__(self, output: Output, steps: Steps | None = None):
        self.output, self.steps = output, steps

    def done(self, segment: Segment) -> SegmentReport | None:
        return self.output.is_done(segment)

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        merged = routes.merge(terms, segment, ballot.majority if ballot else None)
        report = self.take(terms.tensor, segment, merged)
        if ballot and merged.undecided:
            ballot.take(segment, merged.undecided, report)
        norms = terms.context.facts.norms.get(terms.tensor.name)
        if self.steps is not None and norms is not None:
            self.steps.norms[terms.tensor.name] = norms
        return report

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        self.output.take_several(segments, values, reports)

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        return self.take(tensor, segment, routes.copied(context, tensor, segment))

    def take(self, tensor: TensorPlan, segment: Segment, merged: Merged) -> SegmentReport:
        """Write what was merged; here alone merged weights go to an output."""
        for start, values in merged.pieces:
            self.output.write(segment.index, start, values)
        if self.steps is not None:
            for step in merged.steps:
                self.steps.keep(tensor, step)
        return merged.report

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        self.output.finish(segment, report)

    def ballot(self) -> Ballot:
        return Ballot(self.output)

    def end(self, plan: Plan) -> None:
        """Write tied copies, when what they are copies of is there for good."""
        for of, segment in repeats(plan):
            if self.output.is_done(segment) is None:
                n = segment.stop - segment.start
                values = self.output.read(of, segment.start, n)
                self.output.write(segment.index, segment.start, values)
                self.output.finish(segment, SegmentReport([0] * len(plan.models)))
