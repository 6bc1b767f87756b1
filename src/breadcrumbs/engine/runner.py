"""Runs a plan: the passes of each job, and then its segments, on threads, for a consumer.

The bits of what comes out depend on the recipe and the weights alone: not on threads, chunks,
kernel, files or memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from breadcrumbs import kernels
from breadcrumbs.engine import batches
from breadcrumbs.engine.consumers import Consumer, Reading, Writing
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.engine.facts import Facts, UnitId
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Output, SegmentReport, TensorReport
from breadcrumbs.engine.passes import fits, model, norms, products, ranks
from breadcrumbs.engine.passes.protocol import Pass
from breadcrumbs.engine.replay import Steps
from breadcrumbs.engine.routes import copied, rescaled
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.workspace import Workspace, one_blas_thread
from breadcrumbs.plan import Plan, units
from breadcrumbs.plan.units import Job, Piece, Segment
from breadcrumbs.threads import Task, after, at_once, run_tasks

#: Hashing begins with one in EARLY of its tasks; the others come LATE (of all) after the merge.
EARLY = 5
LATE = 0.1
Progress = Callable[[int], None]
#: Makes the tasks that follow.
Then = Callable[[], "list[Task]"]


def silent(nbytes: int) -> None:
    """Show no progress."""


def run(
    plan: Plan,
    consumer: Consumer,
    *,
    threads: int,
    kernel: str = "auto",
    progress: Progress = silent,
    digests: FileDigests | None = None,
    replay: bool = False,
    facts: Facts | None = None,
    found: Callable[[Facts], None] = lambda facts: None,
    only: Collection[UnitId] | None = None,
    keeps: int = 0,
    jobs: Sequence[Job] | None = None,
) -> list[TensorReport]:
    """Carry out ``plan`` for a consumer and return what was done to each tensor.

    threads: how many work at once; the bits of the result do not depend on it.
    kernel: see `kernels.choose`. progress: called with numbers of input bytes done.
    digests: of the input files, to be found on the way. replay: whether steps are wanted.
    facts: what is known already. found: called with what each pass finds besides, from any thread.
    only: ids of the jobs to do, of which all must be known (`known`); the others, and tied copies,
    are left to whoever does them. keeps: bytes of cuts that stay in ``facts``. jobs: of the plan,
    those of ``only`` at least, if they are at hand.
    """
    given = Facts() if facts is None else facts
    begins = plan.sizes.begun if consumer.merges and not replay else 0
    space = Workspace(digests)
    context = Context(plan, space, given, kernel=kernel, replay=replay, begins=begins, keeps=keeps)
    runner = _Runner(context, consumer, progress, only, found, jobs)
    tasks = _spread(runner.tasks(), digests.tasks() if digests else [])
    products = plan.lowered.in_memory or plan.coordinates is not None
    alone = one_blas_thread() if products else nullcontext()
    here = threads == 1 and is_small(plan)
    with alone, kernels.explained(kernel):
        run_tasks(tasks, 0 if here else threads)
    if only is None:
        consumer.end(plan)
    return runner.reports


def is_small(plan: Plan) -> bool:
    """Return whether a plan is carried out sooner than threads are started for it."""
    return plan.bytes_read <= plan.sizes.arena // 4 and not plan.lowered.in_memory


def known(
    plan: Plan,
    *,
    threads: int,
    kernel: str = "auto",
    progress: Progress = silent,
) -> Facts:
    """Return what must be known of ``plan`` before it is merged: plain data, which can be sent."""
    context = Context(plan, kernel=kernel)
    runner = _Runner(context, Reading(), progress)
    run_tasks(runner.looks(), threads)
    return context.facts


def known_alone(context: Context, jobs: Sequence[Job], *, threads: int) -> None:
    """Find of some jobs what is found of each by itself; the facts of the context get it."""
    runner = _Runner(context, Reading(), silent)
    mine = [job for job in jobs if not job.together and not runner._is_copy(job)]
    run_tasks([partial(runner._known, job, lambda: []) for job in mine], threads)


def searches(context: Context) -> Iterator[Callable[[], Facts | Pass]]:
    """Yield what begins each search over the whole model, each after the facts of the last one."""
    plan, runner = context.plan, _Runner(context, Reading(), silent)
    jobs = [job for job in units.jobs(plan) if not runner._is_copy(job)]
    for job in jobs:
        if job.together:
            yield from runner._unknown(job)
    if plan.prepares:
        for name, mine in model.by_component(plan, jobs).items():
            if name not in context.facts.model:
                yield model.Folding(context, mine).begun


def write(
    plan: Plan, output: Output, *, steps: Steps | None = None, **settings: object
) -> list[TensorReport]:
    """Merge ``plan`` into an output. steps: where to keep the steps. settings: as for `run`."""
    run_: Callable[..., list[TensorReport]] = run
    return run_(plan, Writing(output, steps), replay=steps is not None, **settings)


def rescale(
    plan: Plan, steps: Steps, output: Output, *, threads: int, kernel: str = "auto"
) -> None:
    """Carry out ``plan`` with steps that an earlier merge kept; only its factors may be others."""
    context = Context(plan, facts=Facts(norms=steps.norms), kernel=kernel)
    writing = Writing(output)

    def add(job: Job, piece: Piece) -> list[Task]:
        tensor = plan.tensors[piece.index]
        if tensor.copied:
            segment = Segment(piece.index, piece.start, piece.stop, 0)
            writing.take(tensor, segment, copied(context, tensor, segment))
            return []
        terms = Terms(context, job, tensor)
        for step in steps.parts(tensor, piece):
            output.write(piece.index, step.start, rescaled(terms, step))
        return []

    tasks = [partial(add, job, piece) for job in units.jobs(plan) for piece in job.pieces]
    with kernels.explained(kernel):
        run_tasks(tasks, threads)
    writing.end(plan)


def _looks(context: Context, pass_: Pass, told: Callable[[object], None], then: Then) -> list[Task]:
    """Return the tasks of one pass. told: called with each item that is done."""
    lock = threading.Lock()

    def scan(item: object) -> None:
        part = pass_.scan(item)
        with lock:
            pass_.join(item, part)
        told(item)

    return after([partial(scan, item) for item in pass_.items()], then)


class _Runner:
    """One run of a plan: which tasks follow which, and what is reported of them."""

    def __init__(
        self,
        context: Context,
        consumer: Consumer,
        progress: Progress,
        only: Collection[UnitId] | None = None,
        found: Callable[[Facts], None] = lambda facts: None,
        jobs: Sequence[Job] | None = None,
    ):
        self.context, self.consumer, self.plan = context, consumer, context.plan
        self.progress, self.only, self.found, self.jobs = progress, only, found, jobs
        models = len(self.plan.models)
        self.reports = [TensorReport([0] * models) for _ in self.plan.tensors]
        #: By tensor: the share of it that passes before writing have done, entries, bytes told.
        self._done: dict[int, list[float]] = {}
        self._passes = self.plan.method.passes
        self._lock = threading.Lock()

    def tasks(self) -> list[Task]:
        """Return the first task of every job, or the one that prepares for all.

        In order; but where matrices are decomposed those that take long come first, so that no
        thread is left alone with one at the end.
        """
        every, only = self.jobs or units.jobs(self.plan), self.only
        jobs = [job for job in every if only is None or job.unit_id in only]
        if self.plan.lowered.in_memory:
            jobs.sort(key=self._work, reverse=True)
        if self.plan.prepares and only is None:
            return self._prepared(jobs)
        return [
            partial(self._several, some) if len(some) > 1 else partial(self._start, some[0])
            for some in units.together(jobs)
        ]

    def looks(self) -> list[Task]:
        """Return the first tasks of all passes, after which nothing is merged."""
        jobs = [job for job in units.jobs(self.plan) if not self._is_copy(job)]
        if self.plan.prepares:
            return self._prepare(jobs, lambda: [])
        return [partial(self._known, job, lambda: []) for job in jobs]

    def _start(self, job: Job) -> list[Task]:
        """Return the first tasks of a job."""
        segments, ballot = self._left(job)
        if not segments:
            return []
        if self._is_copy(job):
            return self._copies(segments)
        fresh = job.survey and len(segments) == len(list(job.segments()))
        return self._known(job, lambda: self._merges(job, segments, ballot), fresh)

    def _several(self, jobs: list[Job]) -> list[Task]:
        """Do small jobs, those that are alike as one."""
        alike = self.consumer.several and not self.context.replay and not self._passes_first
        for found in batches.of(self.context, jobs) if alike else [jobs]:
            rest = found if isinstance(found, list) else self._batch(found)
            at_once([partial(self._start, job) for job in rest])
        return []

    @property
    def _passes_first(self) -> bool:
        """Whether something must be known of every tensor, besides ranks, before it is merged."""
        lowered = self.plan.lowered
        return bool(lowered.fitted or lowered.gram or lowered.prepares_tensors)

    def _batch(self, batch: batches.Batch) -> list[Job]:
        """Merge a batch; return the jobs that are to be done by themselves."""
        segments = batch.segments
        if any(self.consumer.done(segment) is not None for segment in segments):
            return batch.jobs  # some of them
        values, found = batches.merge(batch)
        reports = [report for report in found if report is not None]
        if len(reports) == len(segments):
            self.consumer.take_several(segments, values, reports)
        else:
            at = 0
            for segment, report in zip(segments, found, strict=True):
                end = at + segment.stop
                if report is not None:
                    self.consumer.take_several([segment], values[at:end], [report])
                at = end
        self._report_several(segments, found)
        return [job for job, report in zip(batch.jobs, found, strict=True) if report is None]

    def _work(self, job: Job) -> int:
        """Return what a decomposition of the largest piece takes, in no unit."""
        tensor, size = self.plan.tensors[job.pieces[0].index], 0
        if not tensor.copied and len(tensor.base.shape) > 1:
            size = max(piece.stop - piece.start for piece in job.pieces)
        return size * min(tensor.base.shape[-2:], default=0)

    def _is_copy(self, job: Job) -> bool:
        return bool(self.plan.tensors[job.pieces[0].index].copied)

    def _left(self, job: Job) -> tuple[list[Segment], Ballot | None]:
        """Return the segments that no earlier run has done, and report those that one has.

        With them the ballot, where the majority of the job's entries has a say.
        """
        found = [(segment, self.consumer.done(segment)) for segment in job.segments()]
        left = [segment for segment, report in found if report is None]
        ballot = None
        if self.plan.lowered.votes and job.together:
            ballot = self.consumer.ballot()
            for segment, report in found:
                if report is not None:
                    ballot.note(segment, report)
            if not left:  # but that run did not come to mend them
                left = [segment for segment, _ in found if ballot.is_wrong(segment)]
        again = set(left)
        for segment, report in found:
            if report is not None and segment not in again:
                self._report(segment, report)
        return left, ballot

    # --- what must be known first ---

    def _known(self, job: Job, then: Then, fresh: bool = False) -> list[Task]:
        """Return the tasks of the passes over a job, and then those of ``then``.

        fresh: whether all of its segments are to be merged.
        """
        for begin in reversed(self._unknown(job, fresh)):
            then = partial(self._looked, begin, then)
        return then()

    def _unknown(self, job: Job, fresh: bool = False) -> list[Callable[[], Facts | Pass]]:
        """Return what begins the passes over a job that nothing is known of yet.

        Each is made with what those before it have found, so that after one that is unknown all
        others are, too. fresh: whether all of its segments are to be merged.
        """
        facts, context = self.context.facts, self.context
        tensors = [self.plan.tensors[piece.index] for piece in job.pieces]
        names = [tensor.name for tensor in tensors]
        passes: list[tuple[dict[Any, Any], list[Any], Callable[[], Facts | Pass]]] = []
        if self.plan.lowered.fitted:
            passes.append((facts.fits, names, lambda: fits.Fits(context, job)))
        if any(map(units.rescaled, tensors)):
            mine = [tensor.name for tensor in tensors if units.rescaled(tensor)]
            passes.append((facts.norms, mine, lambda: norms.Norms(context, job)))
        if self.plan.lowered.gram:
            passes.append((facts.coefficients, names, lambda: products.Products(context, job)))
        if self.plan.lowered.prepares_tensors:
            for piece, name in zip(job.pieces, names, strict=True):
                folding = partial(model.Folding, context, [job], piece.index)
                passes.append((facts.model, [name], lambda folding=folding: folding().begun()))
        if job.survey:  # the first; where others follow, it is too early to merge
            alone = fresh and not passes and not self.plan.prepares
            search = partial(ranks.search, context, job, alone)
            passes.insert(0, (facts.cuts, [job.unit_id], search))
        begun: list[Callable[[], Facts | Pass]] = []
        for known, keys, begin in passes:
            if begun or not all(key in known for key in keys):
                for key in keys:
                    known.pop(key, None)
                begun.append(begin)
        return begun

    def _looked(self, begin: Callable[[], Facts | Pass], then: Then) -> list[Task]:
        """Return the tasks of a pass, and of those that follow from it, and then the others."""
        pass_ = begin()
        if isinstance(pass_, Facts):
            self.context.facts.add(pass_)
            self.found(pass_)
            return then()

        def told(item: object) -> None:
            index, share = pass_.looked(item)
            self._advance(index, looked=share / self._passes)

        ended = partial(self._looked, pass_.end, then)
        return _looks(self.context, pass_, told, ended)

    def _prepared(self, jobs: Sequence[Job]) -> list[Task]:
        """Return the tasks that find what must be known, one job after the other, and then merge.

        Copies do not wait. What is known does not depend on what an earlier run has done.
        """
        copies = [partial(self._start, job) for job in jobs if self._is_copy(job)]
        merged = [job for job in jobs if not self._is_copy(job)]
        left = [self._left(job) for job in merged]

        def ended() -> list[Task]:
            return [
                partial(self._merges, job, segments, ballot)
                for job, (segments, ballot) in zip(merged, left, strict=True)
                if segments
            ]

        if not any(segments for segments, _ in left):
            return copies
        return [*copies, *self._prepare(merged, ended)]

    def _prepare(self, jobs: Sequence[Job], then: Then) -> list[Task]:
        """Return the tasks that find what must be known of jobs, then of the model, then others."""
        waiting, facts = list(reversed(jobs)), self.context.facts
        if any([self._unknown(job) for job in jobs]):
            facts.model.clear()

        def go_on() -> list[Task]:
            if waiting:
                return self._known(waiting.pop(), lambda: [go_on])
            last = then
            for name, mine in model.by_component(self.plan, jobs).items():
                if name not in facts.model:
                    last = partial(self._looked, model.Folding(self.context, mine).begun, last)
            return last()

        return [go_on]

    # --- merging ---

    def _merges(self, job: Job, segments: list[Segment], ballot: Ballot | None) -> list[Task]:
        """Return the tasks that merge, and then those that mend what the majority was not known
        of; segments that an earlier run has done count too."""
        terms_of = functools.cache(partial(self._terms, job))

        def mend(segment: Segment) -> list[Task]:
            assert ballot is not None
            before = ballot.reports[segment.index, segment.start]
            report = ballot.mend(segment)
            if report is None:
                report = self.consumer.merge(terms_of(segment.index), segment, ballot)
            self.consumer.finish(segment, report)
            self._report(segment, report, before)
            return []

        def then() -> list[Task]:
            if ballot is None:
                names = {self.plan.tensors[piece.index].name for piece in job.pieces}
                self.context.forget(job.unit_id, names)
                return []
            return [
                partial(mend, segment) for segment in job.segments() if ballot.is_wrong(segment)
            ]

        def take(segment: Segment) -> None:
            report = self.consumer.merge(terms_of(segment.index), segment, ballot)
            self.consumer.finish(segment, report)
            self._report(segment, report)

        return after([partial(take, segment) for segment in segments], then)

    def _terms(self, job: Job, index: int) -> Terms:
        return Terms(self.context, job, self.plan.tensors[index])

    def _copies(self, segments: list[Segment]) -> list[Task]:
        def take(segment: Segment) -> list[Task]:
            tensor = self.plan.tensors[segment.index]
            report = self.consumer.copy(self.context, tensor, segment)
            self.consumer.finish(segment, report)
            self._report(segment, report)
            return []

        return [partial(take, segment) for segment in segments]

    # --- what is reported ---

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

    def _report_several(
        self, segments: Sequence[Segment], reports: Sequence[SegmentReport | None]
    ) -> None:
        """Do as `_report` for whole tensors, of which those without a report are not done."""
        nbytes = 0
        for segment, report in zip(segments, reports, strict=True):
            if report is None:
                continue
            whole = self.reports[segment.index]
            whole.squares += report.squares
            whole.kept = report.kept
            nbytes += self.plan.tensors[segment.index].bytes_read
        self.progress(nbytes)

    def _advance(self, index: int, looked: float = 0.0, written: int = 0) -> None:
        """Tell how many more bytes are done, if each pass does its part of those of the tensor."""
        tensor = self.plan.tensors[index]
        if written == tensor.base.size and index not in self._done:  # all of it, at once
            self.progress(tensor.bytes_read)
            return
        with self._lock:
            mine = self._done.setdefault(index, [0.0, 0, 0])
            mine[0] = min(mine[0] + looked, 1 - 1 / self._passes)
            mine[1] += written
            share = mine[0] + (1 - mine[0]) * (mine[1] / tensor.base.size)
            more = max(0, int(share * tensor.bytes_read) - mine[2])
            mine[2] += more
        if more or written:
            self.progress(int(more))


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
