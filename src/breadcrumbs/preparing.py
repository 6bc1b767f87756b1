"""What an aggregate must know of the whole model before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.aggregates import Elementwise, Entries
from breadcrumbs.combining import Combining
from breadcrumbs.schedule import Stopped, Task
from breadcrumbs.tensors import Merging
from breadcrumbs.work import Job, Segment

if TYPE_CHECKING:
    from breadcrumbs.engine import Engine


@dataclass(frozen=True)
class Prepared:
    """known: what `Elementwise.prepare` returned. starts: how many entries come before those of
    each tensor, by name."""

    starts: Mapping[str, int]
    known: Any = None


class ModelStream:
    """The `aggregates.Stream` of a merge. parts: jobs with what their transform had to know."""

    def __init__(self, engine: Engine, parts: Sequence[tuple[Job, np.ndarray | None]]):
        self.engine = engine
        self.segments: list[tuple[Segment, Job, np.ndarray | None]] = [
            (segment, job, cuts) for job, cuts in parts for segment in job.segments()
        ]
        self.segments.sort(key=lambda part: (self._name(part[0]), part[0].start))
        self.models = sum(model.weight != 0 for model in engine.plan.recipe.models)
        self.size = sum(segment.stop - segment.start for segment, _, _ in self.segments)

    def _name(self, segment: Segment) -> str:
        return self.engine.plan.tensors[segment.index].name

    def starts(self) -> dict[str, int]:
        """Return how many entries come before those of each tensor."""
        result, start = {}, 0
        for segment, _, _ in self.segments:
            result.setdefault(self._name(segment), start)
            start += segment.stop - segment.start
        return result

    def located(self) -> Iterator[tuple[int, int, Entries]]:
        """Yield (number of the tensor, where in it they start, entries)."""
        for segment, job, cuts in self.segments:
            tensor = self.engine.plan.tensors[segment.index]
            combining = Combining(Merging(self.engine, job, tensor))
            for start, entries in combining.stream(segment, cuts):
                if self.engine.stop.is_set():  # in some merges this goes on for minutes
                    raise Stopped
                yield segment.index, start, entries
            self.engine.looked(segment.index, (segment.stop - segment.start) / tensor.base.size)

    def __iter__(self) -> Iterator[Entries]:
        return (entries for _, _, entries in self.located())


def look(engine: Engine, parts: Sequence[tuple[Job, np.ndarray | None]]) -> None:
    """Let the aggregate find what it must know of the whole model, or of each component."""
    components: dict[str, list[tuple[Job, np.ndarray | None]]] = {}
    for part in parts:
        tensor = engine.plan.tensors[part[0].pieces[0].index]
        components.setdefault(tensor.component, []).append(part)
    for component, mine in components.items():
        _look(engine, component, ModelStream(engine, mine))


def _look(engine: Engine, component: str, stream: ModelStream) -> None:
    aggregate = engine.plan.method.aggregate
    assert isinstance(aggregate, Elementwise) and aggregate.prepare is not None
    starts = stream.starts()
    engine.prepared[component] = Prepared(starts)
    for segment, _, _ in stream.segments[:1]:  # all tensors have the same values
        known = aggregate.prepare(stream, engine.plan.tensors[segment.index].values)
        engine.prepared[component] = Prepared(starts, known)


def prepare(engine: Engine, jobs: Sequence[Job]) -> list[Task]:
    """Return the tasks that find what must be known, one job after the other, and then merge.

    Copies do not wait. What is known does not depend on what an earlier run has done.
    """
    plan = engine.plan
    is_copy = [bool(plan.tensors[job.pieces[0].index].copied) for job in jobs]
    copies = [partial(engine.start, job) for job, copy in zip(jobs, is_copy, strict=True) if copy]
    merged = [job for job, copy in zip(jobs, is_copy, strict=True) if not copy]
    left = [engine.left(job) for job in merged]
    waiting = list(reversed(merged))
    ready: list[tuple[Job, np.ndarray | None]] = []

    def found(job: Job, cuts: np.ndarray | None) -> list[Task]:
        ready.append((job, cuts))
        return [go_on]

    def go_on() -> list[Task]:
        if waiting:
            job = waiting.pop()
            return engine.ready(job, partial(found, job))
        look(engine, ready)
        return [
            partial(engine.before, job, segments, cuts)
            for (job, cuts), segments in zip(ready, left, strict=True)
            if segments
        ]

    return [*copies, *([go_on] if any(left) else [])]
