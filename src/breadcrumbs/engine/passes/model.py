"""The passes over the whole model, or each tensor, that `Elementwise.prepare` asks for first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from breadcrumbs.engine.context import Context
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.passes.protocol import Looked, Looks, Pass
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.methods.aggregates import Extent, Fold
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.units import Job, Segment


class Folding(Looks):
    """One pass after the other, as the aggregate asks; the cuts of all jobs are known.

    jobs: all of the model, or of a component of a pipeline. only: the number of the one tensor that
    is looked at, where each is by itself.
    """

    def __init__(self, context: Context, jobs: Sequence[Job], only: int | None = None):
        self.context = context
        first = context.plan.tensors[jobs[0].pieces[0].index if only is None else only]
        self.name = first.component if only is None else first.name
        self.segments = [
            (segment, job)
            for job in jobs
            for segment in job.segments()
            if only is None or segment.index == only
        ]
        self.segments.sort(key=lambda it: (self._tensor(it[0]).name, it[0].start))
        self.at: list[int] = []
        #: How many entries come before each tensor's.
        self.starts: dict[str, int] = {}
        start = 0
        for segment, _ in self.segments:
            self.starts.setdefault(self._tensor(segment).name, start)
            self.at.append(start)
            start += segment.stop - segment.start
        weights = context.plan.recipe.models if only is None else first.own
        number = sum(it.weight != 0 for it in weights)
        self.extent = Extent(start, number, context.plan.sizes.few)

    def _tensor(self, segment: Segment) -> TensorPlan:
        return self.context.plan.tensors[segment.index]

    def begun(self) -> Facts | Pass:
        """Return the first pass; at once what is known, if there is none."""
        aggregate = self.context.plan.lowered.elementwise
        assert aggregate is not None and aggregate.prepare is not None
        # all tensors have the same values
        self._asked = aggregate.prepare(self.extent, self._tensor(self.segments[0][0]).values)
        return self._next(None)

    def _next(self, found: Any) -> Facts | Pass:
        try:
            self.fold: Fold = self._asked.send(found)
        except StopIteration as done:
            return Facts(model={self.name: done.value}, starts=self.starts)
        self.known = self.fold.empty()
        return self

    def items(self) -> list[int]:
        """The numbers of segments."""
        whole = range(len(self.segments))
        if self.fold.at is None:
            return list(whole)
        return [max(i for i in whole if self.at[i] <= self.fold.at)]

    def scan(self, item: int) -> Any:
        segment, job = self.segments[item]
        fold, found, tensor = self.fold, self.fold.empty(), self._tensor(segment)
        it = Vectors(Terms(self.context, job, tensor))
        for part in self._sampled(segment, job) if fold.some else (segment,):
            for entries in it.entries(part, self.starts[tensor.name]):
                if fold.at is None or fold.at == entries.start:
                    found = fold.join(found, fold.scan(entries))
        return found

    def _sampled(self, segment: Segment, job: Job) -> Iterator[Segment]:
        """Yield the beginnings of chunks that are sampled of a segment: of all, or every so many.

        They have whole units where these are smaller than a chunk.
        """
        some, chunk = self.fold.some or 1, job.chunk
        every = max(1, some * self.context.plan.sizes.run // chunk)
        begins = self.starts[self._tensor(segment).name]
        unit = 1 if job.survey else job.unit
        for i, start in enumerate(range(segment.start, segment.stop, chunk)):
            if (begins + start) // chunk % every == 0:
                n = -(-min(chunk, segment.stop - start) * every // some)
                n = min(-(-n // unit) * unit, segment.stop - start)
                yield Segment(segment.index, start, start + n, segment.first_chunk + i)

    def join(self, item: int, part: Any) -> None:
        self.known = self.fold.join(self.known, part)

    def added(self, one: Any, other: Any) -> Any:
        return self.fold.join(one, other)

    @property
    def light(self) -> bool:
        """Whether a pass reads little of the model: a sample, or the entries from one place on."""
        return self.fold.at is not None or self.fold.some is not None

    def looked(self, item: int) -> Looked:
        segment, _ = self.segments[item]
        size = self._tensor(segment).base.size
        share = (segment.stop - segment.start) / size
        return segment.index, share if self.fold.at is None and self.fold.some is None else 0.0

    def end(self) -> Facts | Pass:
        return self._next(self.known)


def by_component(plan: Plan, jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """Return the jobs of each component of a pipeline; of a single model, all of that of ""."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(plan.tensors[job.pieces[0].index].component, []).append(job)
    return found
