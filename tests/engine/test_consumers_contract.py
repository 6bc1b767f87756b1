"""What every consumer keeps to: segments in any order, from any thread, come to the same.

Consumers that write, take sums of a store, pack and compare are handed the segments of a plan as
the runner hands them, and in other orders; `runner` knows none of them.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import implementations
import numpy as np
import pytest
from families import checkpoints
from stores import filled

from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Consumer, Reading, Writing
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Output, SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.merging import calibration, comparison, looking, opening
from breadcrumbs.merging.arrays import ArraySink
from breadcrumbs.merging.parts.dealing import Deal
from breadcrumbs.merging.parts.measuring import Measuring
from breadcrumbs.merging.parts.writing import WritingShard
from breadcrumbs.plan import Plan, Sizes, TensorPlan, units
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.plan.units import Segment
from breadcrumbs.store import opted
from breadcrumbs.store.grammed import Grammed
from breadcrumbs.store.summed import Summed
from breadcrumbs.taskfile import encodings
from breadcrumbs.tasks import blocks, packing
from breadcrumbs.tune.learn.weights import streams

#: Chunks and segments so small that tensors have several.
SMALL = Sizes(chunk=256, arena=1 << 13)


@dataclass
class Taker:
    """A way to make a consumer of a plan. make: the consumer, and what tells what it has taken."""

    plan: Plan
    make: Callable[[Plan], tuple[Consumer, Callable[[], Any]]]


def written(consumer: Callable[[ArraySink], Consumer], plan: Plan) -> tuple[Consumer, Callable]:
    output = ArraySink(plan)
    return consumer(output), lambda: {k: v.tobytes() for k, v in output.arrays.items()}


def writing(stack: ExitStack, folder: Path) -> Taker:
    base, *models = checkpoints(folder, models=2)
    asked = {"alpha": 0.5, "beta": 0.3, "gamma": 0.9}
    made = Recipe(base, tuple(map(Model, models)), "breadcrumbs", asked)
    plan = stack.enter_context(opening.opened(made))
    return Taker(plan, lambda plan: written(Writing, plan))


def summed(stack: ExitStack, folder: Path) -> Taker:
    store, _ = filled(folder, models=2, alpha=0.5)
    stack.enter_context(store)
    entries = store.entries(store.ledger.latest())
    plan = stack.enter_context(opening.opened(store.recipe(entries)))
    hashes = [entry.task for entry in entries]
    return Taker(plan, lambda plan: written(lambda o: Summed(o, store.sums, hashes), plan))


def grammed(stack: ExitStack, folder: Path) -> Taker:
    store, _ = filled(folder, models=2, method="wudi")
    stack.enter_context(store)
    store.keep_grams()
    entries = store.entries(store.ledger.latest())
    plan = stack.enter_context(opening.opened(store.recipe(entries)))
    hashes, grams = [entry.task for entry in entries], opted.of(store)
    assert grams is not None

    def make(output: Output) -> Grammed:
        return Grammed(output, store.sums, hashes, grams)

    return Taker(plan, lambda plan: written(make, plan))


def packed(encoding: str) -> Callable[[ExitStack, Path], Taker]:
    def taker(stack: ExitStack, folder: Path) -> Taker:
        base, model = checkpoints(folder, models=1)
        made = packing.recipe(base, (Model(model),), "breadcrumbs", {})
        plan = stack.enter_context(opening.opened(made))

        def make(plan: Plan) -> tuple[Consumer, Callable]:
            spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            taking = blocks.Packing(plan, spool, encodings.asked(encoding), {})

            def taken() -> dict:
                found = {}
                for place, row in sorted(taking.rows.items()):
                    spool.seek(row.at)
                    found[place] = row.numbers, spool.read(row.size), row.loss, row.squares
                return found

            return taking, taken

        return Taker(plan, make)

    return taker


def compared(stack: ExitStack, folder: Path) -> Taker:
    base, *models = checkpoints(folder, models=3)
    made = comparison.recipe(base, tuple(map(Model, models)), "none", {})
    plan = stack.enter_context(opening.opened(made))

    def make(plan: Plan) -> tuple[Consumer, Callable]:
        taking = comparison.Comparing(replace(plan, sizes=replace(plan.sizes, block=300, held=3)))
        return taking, lambda: {i: it.result() for i, it in taking.totals.items()}

    return Taker(plan, make)


def measured(stack: ExitStack, folder: Path) -> Taker:
    plan = writing(stack, folder).plan

    def make(plan: Plan) -> tuple[Consumer, Callable]:
        taking = calibration.Products(plan)
        # Sums of parts are rounded, by chunks of other sizes in another way.
        return taking, lambda: (taking.of(None).alpha, f"{taking.of(None).mean:.9g}")

    return Taker(plan, make)


def measured_of_a_shard(stack: ExitStack, folder: Path) -> Taker:
    plan = writing(stack, folder).plan

    def make(plan: Plan) -> tuple[Consumer, Callable]:
        deal = Deal(plan, 10**9)
        taking, every = Measuring(plan, deal, deal.shards[0], 0), calibration.Products(plan)

        def taken() -> tuple[float, str]:
            every.add(taking.sent())
            return every.of(None).alpha, f"{every.of(None).mean:.9g}"

        return taking, taken

    return Taker(plan, make)


def written_of_a_shard(stack: ExitStack, folder: Path) -> Taker:
    plan = writing(stack, folder).plan
    return Taker(plan, lambda it: written(lambda output: WritingShard(output, 0, 2), it))


def looked(stack: ExitStack, folder: Path) -> Taker:
    plan = writing(stack, folder).plan

    def make(plan: Plan) -> tuple[Consumer, Callable]:
        taking = looking.Looking(plan, 1 << 30)  # all entries: which are sampled depends on chunks
        return taking, lambda: {name: it.tobytes() for name, it in taking.histograms.items()}

    return Taker(plan, make)


def put(stack: ExitStack, folder: Path) -> Taker:
    torch = pytest.importorskip("torch")
    plan = writing(stack, folder).plan

    def make(plan: Plan) -> tuple[Consumer, Callable]:
        flat = {it.output: torch.full(it.base.shape, -7.0) for it in plan.tensors}
        slots: Any = SimpleNamespace(names={k: SimpleNamespace(tensor=v) for k, v in flat.items()})
        taking = streams.Putting(streams.Module(plan, slots), fresh=True)
        return taking, lambda: {name: it.numpy().tobytes() for name, it in flat.items()}

    return Taker(plan, make)


def scanned(stack: ExitStack, folder: Path) -> Taker:
    torch = pytest.importorskip("torch")
    plan = writing(stack, folder).plan

    def make(plan: Plan) -> tuple[Consumer, Callable]:
        count = [int(np.prod(it.base.shape)) for it in plan.tensors]
        gradients = [torch.arange(n, dtype=torch.float32) for n in count]
        taking = streams.Scanning(plan, gradients, streams.products, len(plan.models))
        # Sums are rounded, by chunks of other sizes in another way.
        return taking, lambda: {
            it.name: [f"{x:.9g}" for x in taking.of(it.name)] for it in plan.tensors
        }

    return Taker(plan, make)


CONSUMERS: dict[str, Callable[[ExitStack, Path], Taker]] = {
    "engine.consumers.Writing": writing,
    "store.summed.Summed": summed,
    "store.grammed.Grammed": grammed,
    "tasks.blocks.Packing": packed("exact"),
    "tasks.blocks.Packing, which loses": packed("int8"),
    "merging.comparison.Comparing": compared,
    "merging.calibration.Products": measured,
    "merging.looking.Looking": looked,
    "merging.parts.measuring.Measuring": measured_of_a_shard,
    "merging.parts.writing.WritingShard": written_of_a_shard,
    "tune.learn.weights.streams.Putting": put,
    "tune.learn.weights.streams.Scanning": scanned,
}
#: What others are made from.
BASES = {"engine.consumers.Reading"}


def test_every_consumer_is_here() -> None:
    named = {name.partition(",")[0] for name in CONSUMERS}
    assert named | BASES == implementations.of("Consumer")


@pytest.fixture(params=CONSUMERS)
def taker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Taker]:
    with ExitStack() as stack:
        found = CONSUMERS[request.param](stack, tmp_path)
        made = implementations.name_of(found.make(found.plan)[0])
        assert made == request.param.partition(",")[0]
        yield found


def ran(taker: Taker, plan: Plan, **settings: Any) -> Any:
    """Return what a consumer takes of a run."""
    consumer, taken = taker.make(plan)
    runner.run(plan, consumer, **{"threads": 1, **settings})
    return taken()


def small(plan: Plan) -> Plan:
    return replace(plan, sizes=SMALL)


class TestConsumers:
    """What a consumer promises."""

    def test_nothing_is_done_at_first(self, taker: Taker) -> None:
        consumer, _ = taker.make(taker.plan)
        assert not any(consumer.done(s) for job in units.jobs(taker.plan) for s in job.segments())

    @pytest.mark.parametrize("kernel", ["numpy", "native"])
    def test_threads_sizes_and_kernels_change_nothing(self, taker: Taker, kernel: str) -> None:
        expected = ran(taker, taker.plan)
        assert expected
        plan = small(taker.plan)
        several = [job for job in units.jobs(plan) if len(list(job.segments())) > 1]
        assert several or any(model.cut for model in plan.models)  # those go block by block
        for threads in (1, 4):
            assert ran(taker, plan, threads=threads, kernel=kernel) == expected

    def test_segments_may_come_in_any_order(self, taker: Taker) -> None:
        plan = small(taker.plan)
        context = Context(plan, facts=runner.known(plan, threads=1))
        consumer, taken = taker.make(plan)
        all_ = [(job, segment) for job in units.jobs(plan) for segment in job.segments()]
        order = [all_[i] for i in np.random.default_rng(0).permutation(len(all_))]
        together = threading.Barrier(4)

        def work(number: int) -> None:
            together.wait(60)
            for job, segment in order[number::4]:
                tensor = plan.tensors[segment.index]
                if tensor.copied:
                    report = consumer.copy(context, tensor, segment)
                else:
                    report = consumer.merge(Terms(context, job, tensor), segment, None)
                assert len(report.kept) == len(plan.models)
                consumer.finish(segment, report)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        consumer.end(plan)
        assert taken() == ran(taker, taker.plan)


class Noting(Reading):
    """Notes what the runner asks of it."""

    def __init__(self, before: set[tuple[int, int]]):
        self.before, self.calls = before, []
        self._lock = threading.Lock()

    def _note(self, what: str, segment: Segment) -> None:
        with self._lock:
            self.calls.append((what, segment.index, segment.start, segment.stop))

    def done(self, segment: Segment) -> SegmentReport | None:
        if (segment.index, segment.start) in self.before:
            return SegmentReport([1, 2])
        return None

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        self._note("merge", segment)
        return SegmentReport([1, 2])

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        self._note("copy", segment)
        return SegmentReport([0, 0])

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        self._note("finish", segment)

    def end(self, plan: Plan) -> None:
        self.calls.append(("end", 0, 0, 0))


@pytest.mark.parametrize("threads", [1, 4])
def test_what_the_runner_asks_of_a_consumer(threads: int, tmp_path: Path) -> None:
    with ExitStack() as stack:
        plan = small(writing(stack, tmp_path).plan)
        every = [segment for job in units.jobs(plan) for segment in job.segments()]
        before = {(segment.index, segment.start) for segment in every[::3]}
        consumer = Noting(before)
        reports = runner.run(plan, consumer, threads=threads)
    left = [segment for segment in every if (segment.index, segment.start) not in before]
    assert consumer.calls.pop() == ("end", 0, 0, 0)
    counts = Counter(call[1:] for call in consumer.calls)
    assert counts == {(s.index, s.start, s.stop): 2 for s in left}
    for segment in left:
        mine = [c[0] for c in consumer.calls if c[1:3] == (segment.index, segment.start)]
        assert mine == ["copy" if plan.tensors[segment.index].copied else "merge", "finish"]
    for index, report in enumerate(reports):
        mine = [segment for segment in every if segment.index == index]
        done = [s for s in mine if (s.index, s.start) in before or not plan.tensors[index].copied]
        assert report.kept == [len(done), 2 * len(done)]
