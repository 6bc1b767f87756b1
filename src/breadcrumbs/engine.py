"""Plan -> merged weights: reads chunks, calls the kernels, hands the results to a sink.

The bits of the result depend on the recipe and the weights alone. `passes` surveys what must be
known first, `tensors` merges; here is what runs them.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from breadcrumbs import gram, kernels, work
from breadcrumbs.aggregates import Elementwise, Gram, Whole
from breadcrumbs.ballot import Ballot
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.combining import Combining
from breadcrumbs.hashing import FileDigests
from breadcrumbs.kernels import plain
from breadcrumbs.passes import Survey
from breadcrumbs.plan import Plan
from breadcrumbs.preparing import Prepared, prepare
from breadcrumbs.schedule import Task, after, run_tasks
from breadcrumbs.sink import SegmentReport, Sink, TensorReport
from breadcrumbs.steps import Steps
from breadcrumbs.tensors import Merging, copy
from breadcrumbs.transforms import Fitted
from breadcrumbs.work import Job, Piece, Segment

#: Hashing begins with one in EARLY of its tasks; the others come LATE (of all) after the merge.
EARLY = 5
LATE = 0.1


@dataclass
class Engine:
    """One merge. Use `run`."""

    plan: Plan
    sink: Sink
    kernel: str = "auto"
    progress: Callable[[int], None] = lambda nbytes: None
    digests: FileDigests | None = None
    #: Bytes of keys that a survey collects of a model at most, `survey.BUDGET` unless told.
    budget: int | None = None
    #: Where the steps go before their factor, if they are to be kept.
    steps: Steps | None = None
    reports: list[TensorReport] = field(init=False)
    #: What is known of the whole model, or of each component, and of each tensor by name, where it
    #: was asked for.
    prepared: dict[str, Prepared] = field(default_factory=dict)
    fits: dict[str, Any] = field(default_factory=dict)
    #: By tensor, what `rescale: l1` multiplies the task vectors by.
    ratios: dict[str, np.ndarray] = field(default_factory=dict)
    #: The votes of all entries that are ranked together, where their majority has a say: of the
    #: model, or of each component.
    ballots: dict[str, Ballot] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    #: By tensor: the share of it that passes before writing have done, entries written, bytes told.
    _done: dict[int, list[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        models = len(self.plan.models)
        self.reports = [TensorReport([0] * models) for _ in self.plan.tensors]

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The kernels; imported when first asked for, while other threads read and hash."""
        return kernels.choose(self.plan.entries, self.kernel)

    def tasks(self) -> list[Task]:
        """Return the first task of every job, in order, or the one that prepares for all."""
        jobs = work.jobs(self.plan)
        if self.plan.prepares:
            return [partial(prepare, self, jobs)]
        return [partial(self.start, job) for job in jobs]

    def start(self, job: Job) -> list[Task]:
        """Return the first tasks of a job."""
        segments = self.left(job)
        if not segments:
            return []
        if self.plan.tensors[segments[0].index].copied:
            return self._writes(job, segments, None, {})
        return self.ready(job, lambda cuts: self.before(job, segments, cuts))

    def left(self, job: Job) -> list[Segment]:
        """Return the segments that no earlier run has done, and report those that one has."""
        found = [(segment, self.sink.is_done(segment)) for segment in job.segments()]
        left = [segment for segment, report in found if report is None]
        if self._votes(job):
            ballot = self.ballots[self._component(job)] = Ballot(self.sink)
            for segment, report in found:
                if report is not None:
                    ballot.note(segment, report)
            if not left:  # but that run did not come to mend them
                left = [segment for segment, _ in found if ballot.is_wrong(segment)]
        again = set(left)
        for segment, report in found:
            if report is not None and segment not in again:
                self._report(segment, report)
        return left

    def ready(self, job: Job, then: Callable[[np.ndarray | None], list[Task]]) -> list[Task]:
        """Return the tasks that find what the transform must know, and then those of ``then``."""
        if job.survey:
            return Survey(self, job).start(lambda cuts: self._rescaled(job, cuts, then))
        if isinstance(self.plan.method.transform, Fitted):

            def fit() -> list[Task]:
                tensor = self.plan.tensors[job.pieces[0].index]
                combining = Combining(Merging(self, job, tensor))
                self.fits[tensor.name] = combining.fit(list(job.segments()))
                self.looked(job.pieces[0].index, self.plan.method.passes - 1)
                return then(None)

            return [fit]
        return self._rescaled(job, None, then)

    def _rescaled(
        self,
        job: Job,
        cuts: np.ndarray | None,
        then: Callable[[np.ndarray | None], list[Task]],
    ) -> list[Task]:
        """Return the tasks that find norms, for tensors that are rescaled by them, and then all."""
        rescaled = [p.index for p in job.pieces if work.rescaled(self.plan.tensors[p.index])]
        if not rescaled:
            return then(cuts)

        def find(index: int) -> None:
            tensor = self.plan.tensors[index]
            mine = [segment for segment in job.segments() if segment.index == index]
            self.ratios[tensor.name] = Combining(Merging(self, job, tensor)).ratios(mine, cuts)
            self.looked(index, 1)

        return after([partial(find, index) for index in rescaled], lambda: then(cuts))

    def before(self, job: Job, segments: list[Segment], cuts: np.ndarray | None) -> list[Task]:
        """Return the tasks that find what an aggregate must know, or at once those that write."""
        aggregate = self.plan.method.aggregate
        if self._votes(job):
            return self._election(job, segments, cuts)
        if isinstance(aggregate, Gram):
            return self._find_angles(aggregate, job, segments, cuts)
        return self._writes(job, segments, cuts, {})

    def _component(self, job: Job) -> str:
        return self.plan.tensors[job.pieces[0].index].component

    def _votes(self, job: Job) -> bool:
        """Return whether the majority of the job's entries has a say."""
        aggregate = self.plan.method.aggregate
        return isinstance(aggregate, Elementwise) and aggregate.vote is not None and job.together

    def _election(self, job: Job, segments: list[Segment], cuts: np.ndarray | None) -> list[Task]:
        """Return the tasks that write, and then those that mend what the majority was not known of.

        Segments that an earlier run has done count too.
        """
        ballot = self.ballots[self._component(job)]

        def mend(segment: Segment) -> list[Task]:
            before = ballot.reports[segment.index, segment.start]
            report = ballot.mend(segment)
            if report is None:
                combining = Combining(Merging(self, job, self.plan.tensors[segment.index]))
                report = combining.write(segment, cuts, None, ballot)
            self.sink.finish(segment, report)
            self._report(segment, report, before)
            return []

        def then() -> list[Task]:
            return [
                partial(mend, segment) for segment in job.segments() if ballot.is_wrong(segment)
            ]

        return after(self._writes(job, segments, cuts, {}, ballot), then)

    def _find_angles(
        self, aggregate: Gram, job: Job, segments: list[Segment], cuts: np.ndarray | None
    ) -> list[Task]:
        """Return the tasks that find the coefficients of each tensor, segment by segment."""
        known: dict[int, Any] = {}
        products: dict[int, dict[int, np.ndarray]] = {}

        def multiply(run: list[Segment]) -> None:
            index, tensor = run[0].index, self.plan.tensors[run[0].index]
            combining = Combining(Merging(self, job, tensor))
            if aggregate.lines(tensor.values) == "tensor":
                products.setdefault(index, {})[run[0].start] = gram.products(combining, run, cuts)
            else:
                known[index] = gram.line_coefficients(combining, run, cuts)
            self.looked(index, self._share(run))

        def combine() -> list[Task]:
            for index, mine in products.items():
                parts = np.concatenate([mine[start] for start in sorted(mine)])
                combining = Combining(Merging(self, job, self.plan.tensors[index]))
                known[index] = gram.coefficients(combining, parts)
            return self._writes(job, segments, cuts, known)

        tasks = []
        for index in sorted({segment.index for segment in segments}):
            run = [segment for segment in job.segments() if segment.index == index]
            lines = aggregate.lines(self.plan.tensors[index].values)
            cut = job.dtype != np.float64 and not any(part.start % plain.PART for part in run)
            if lines == "tensor" and cut:
                tasks += [partial(multiply, [segment]) for segment in run]
            else:
                tasks.append(partial(multiply, run))
        return after(tasks, combine)

    def _writes(
        self,
        job: Job,
        segments: list[Segment],
        cuts: np.ndarray | None,
        known: dict[int, Any],
        ballot: Ballot | None = None,
    ) -> list[Task]:
        @functools.cache
        def merging_of(index: int) -> Merging:
            return Merging(self, job, self.plan.tensors[index])

        def task(segment: Segment) -> list[Task]:
            mine = known.get(segment.index)
            report = self.written(segment, merging_of, cuts, mine, ballot)
            self.sink.finish(segment, report)
            self._report(segment, report)
            return []

        return [partial(task, segment) for segment in segments]

    def written(
        self,
        segment: Segment,
        merging_of: Callable[[int], Merging],
        cuts: np.ndarray | None,
        known: Any,
        ballot: Ballot | None,
    ) -> SegmentReport:
        """Write a segment and return the report; what other engines do otherwise.

        merging_of: of tensors by number. known: what an aggregate has found of the tensor before.
        """
        tensor = self.plan.tensors[segment.index]
        if tensor.copied:
            return copy(self, tensor, segment)
        merging = merging_of(segment.index)
        if merging.linear:
            return merging.write(segment, cuts)
        return Combining(merging).write(segment, cuts, known, ballot)

    def repeat(self) -> None:
        """Write tied copies, when what they are copies of is there for good."""
        for of, segment in work.repeats(self.plan):
            if self.sink.is_done(segment) is None:
                n = segment.stop - segment.start
                self.sink.write(segment.index, segment.start, self.sink.read(of, segment.start, n))
                self.sink.finish(segment, SegmentReport([0] * len(self.plan.models)))

    def _report(
        self, segment: Segment, report: SegmentReport, instead: SegmentReport | None = None
    ) -> None:
        """Add what was done to a segment. instead: of what was reported of it before."""
        with self._lock:
            whole = self.reports[segment.index]
            whole.squares += report.squares
            whole.counts.update(report.counts)
            if instead is not None:
                whole.squares -= instead.squares
                whole.counts.subtract(instead.counts)
                return
            whole.kept = [a + b for a, b in zip(whole.kept, report.kept, strict=True)]
        self._advance(segment.index, written=segment.stop - segment.start)

    def _share(self, segments: list[Segment]) -> float:
        """Return what share of their tensor some segments are."""
        size = self.plan.tensors[segments[0].index].base.size
        return sum(segment.stop - segment.start for segment in segments) / size

    def looked(self, index: int, share: float) -> None:
        """Note that a share of one pass over a tensor is done, not of the one that writes."""
        self._advance(index, looked=share / self.plan.method.passes)

    def _advance(self, index: int, looked: float = 0.0, written: int = 0) -> None:
        """Tell how many more bytes are done, if each pass does its part of those of the tensor."""
        tensor = self.plan.tensors[index]
        with self._lock:
            mine = self._done.setdefault(index, [0.0, 0, 0])
            mine[0] = min(mine[0] + looked, 1 - 1 / self.plan.method.passes)
            mine[1] += written
            share = mine[0] + (1 - mine[0]) * (mine[1] / tensor.base.size)
            more = max(0, int(share * tensor.bytes_read) - mine[2])
            mine[2] += more
        if more or written:
            self.progress(int(more))

    def load(self, tensors: Sequence[Tensor], start: int, n: int, dtype: np.dtype) -> np.ndarray:
        """Return raw rows (tensors, n) with the entries from ``start`` on.

        They stay in this thread's arena, so that asking for them again costs nothing, and are
        hashed on the way. Not to be changed.
        """
        asked = ([id(tensor) for tensor in tensors], start, n, dtype)
        rows = self.buffer("arena", (len(tensors), n), dtype)
        if self._local.__dict__.get("held") != asked:
            self._local.held = None
            side = self.buffer("side", (work.CHUNK,), np.float64)
            for row, tensor in zip(rows, tensors, strict=True):
                work.read_raw(tensor, start, row, side)
                if self.digests is not None and work.as_is(tensor, dtype):
                    self.digests.offer(tensor, start, row)
            self._local.held = asked
        return rows

    def read(self, tensors: Sequence[Tensor], start: int, rows: np.ndarray) -> None:
        """Fill raw ``rows``, one for each tensor, with the entries from ``start`` on."""
        side = self.buffer("side", (work.CHUNK,), np.float64)
        for row, tensor in zip(rows, tensors, strict=True):
            work.read_raw(tensor, start, row, side)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """Return this thread's buffer of that name, grown if needed; its content is undefined."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        buffers = self._local.__dict__
        if name not in buffers or buffers[name].size < nbytes:
            buffers[name] = work.mapped(nbytes, np.dtype(np.uint8))
        return buffers[name][:nbytes].view(dtype).reshape(shape)


def run(
    plan: Plan,
    sink: Sink,
    *,
    threads: int,
    kernel: str = "auto",
    progress: Callable[[int], None] = lambda nbytes: None,
    digests: FileDigests | None = None,
    steps: Steps | None = None,
    kind: Callable[..., Engine] = Engine,
    budget: int | None = None,
) -> list[TensorReport]:
    """Carry out ``plan`` and return what was done to each tensor.

    threads: how many work at once; the bits of the result do not depend on it.
    kernel: see `kernels.choose`. progress: called with numbers of input bytes done.
    digests: of the input files, to be found on the way. steps: where to keep the steps. kind: makes
    the engine. budget: bytes of keys that a survey collects of a model at most.
    """
    engine = kind(plan, sink, kernel, progress, digests, steps=steps, budget=budget)
    tasks = _spread(engine.tasks(), digests.tasks() if digests else [])
    with one_blas_thread() if isinstance(plan.method.aggregate, Whole) else nullcontext():
        run_tasks(tasks, threads, engine.stop)
    engine.repeat()
    if steps is not None:
        steps.ratios.update(engine.ratios)
    return engine.reports


def rescale(plan: Plan, steps: Steps, sink: Sink, *, threads: int, kernel: str = "auto") -> None:
    """Carry out ``plan`` with steps that an earlier merge kept; only its factors may be others."""
    engine = Engine(plan, sink, kernel, ratios=steps.ratios)

    def add(job: Job, piece: Piece) -> list[Task]:
        tensor = plan.tensors[piece.index]
        if tensor.copied:
            copy(engine, tensor, Segment(piece.index, piece.start, piece.stop, 0))
            return []
        merging = Merging(engine, job, tensor)
        for start, total, rest in steps.parts(tensor, piece):
            if merging.linear:
                merging.rescale(piece.index, start, total, rest)
            else:
                Combining(merging).rescale(piece.index, start, total)
        return []

    tasks = [partial(add, job, piece) for job in work.jobs(plan) for piece in job.pieces]
    run_tasks(tasks, threads, engine.stop)
    engine.repeat()


def one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which a product or decomposition of matrices uses the thread it runs in.

    Threads of NumPy's linear algebra wait for the cores that those of the merge are on: with two
    busy cores `wudi` took ten times as long. And what they round to may depend on their number.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def _spread(tasks: list[Task], hashing: list[Task]) -> list[Task]:
    """Return the tasks of the merge and those of hashing in the order to begin them in.

    The first task of the merge waits for the kernels to load, and meanwhile files are hashed.
    After that the merge offers what it reads, and hashing only fills what that leaves out.
    """
    early = len(hashing) // EARLY
    ranked = [(i / len(tasks), 1, task) for i, task in enumerate(tasks)]
    ranked += [(0.0, 2, task) for task in hashing[:early]]
    ranked += [
        ((i + LATE * len(hashing)) / len(hashing), 2, task)
        for i, task in enumerate(hashing)
        if i >= early
    ]
    return [task for _, _, task in sorted(ranked, key=lambda entry: entry[:2])]
