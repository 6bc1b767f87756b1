"""What every output keeps to: entries in any order, from any thread, come back and count.

Outputs in memory, in files and quantised again, and the one of nothing, are handed segments as the
engine hands them; nothing in `engine` knows which one it has.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import implementations
import numpy as np
import pytest
import quantised_files
from families import family, saved

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import digests
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.engine.outputs import Election, Nowhere, Output, SegmentReport
from breadcrumbs.merging import opening
from breadcrumbs.merging.arrays import ArraySink
from breadcrumbs.merging.files import FileSink
from breadcrumbs.merging.parts.dealing import Deal, wanted
from breadcrumbs.merging.parts.writing import ShardFile, head
from breadcrumbs.merging.quantising import Layout, SameSink
from breadcrumbs.plan import Plan
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.plan.units import Segment

Values = dict[int, np.ndarray]


@dataclass
class Opened:
    """An output under way. end: completes it, and returns what it holds, by the tensor's name.

    again: gives it up half way, and opens it to go on; None where that cannot be.
    """

    output: Output
    plan: Plan
    end: Callable[[], dict[str, np.ndarray]]
    again: Callable[[], Opened] | None = None


def planned(stack: ExitStack, folder: Path, **given: Any) -> Plan:
    base, *models = saved(folder, family(1, "bfloat16", 2))
    made = Recipe(base, tuple(map(Model, models)), "task_arithmetic", {"alpha": 0.5}, **given)
    return stack.enter_context(opening.opened(made))


def in_memory(stack: ExitStack, folder: Path) -> Opened:
    plan = planned(stack, folder)
    output = ArraySink(plan)
    return Opened(output, plan, lambda: output.arrays)


def writer(path: Path, entries: list[Entry], resume: bool = False) -> Writer:
    metadata = {"format": "pt"}
    return Writer(path, entries, metadata, shard_size=200, key="mine", force=False, resume=resume)


def in_files(name: str) -> Callable[[ExitStack, Path], Opened]:
    """Return what opens an output of that name: a folder of shards, or one file."""

    def opened(stack: ExitStack, folder: Path) -> Opened:
        plan, path = planned(stack, folder, dtype="float32"), folder / name
        entries = [Entry(it.output, it.dtype, it.base.shape) for it in plan.tensors]

        def start(resume: bool) -> Opened:
            mine = writer(path, entries, resume)
            stack.callback(mine.abandon)

            def end() -> dict[str, np.ndarray]:
                mine.close(lambda folder: None)
                with checkpoint.open(path) as made:
                    return dict(made)

            def again() -> Opened:
                mine.abandon()
                return start(True)

            return Opened(FileSink(mine), plan, end, again)

        return start(False)

    return opened


def quantised_again(stack: ExitStack, folder: Path) -> Opened:
    said = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    paths = []
    for seed, name in enumerate(("base", "one")):
        tensors: dict[str, Any] = {"norm.weight": quantised_files.bf16(np.ones(8) + seed)}
        for key, shape in {"a": (256, 130), "b": (5, 7)}.items():
            code, scale = quantised_files.quantised(quantised_files.normal(seed, *shape))
            tensors |= {f"{key}.weight": code, f"{key}.weight_scale_inv": scale}
        paths.append(str(quantised_files.folder(folder / name, tensors, said)))
    made = Recipe(paths[0], (Model(paths[1]),), "task_arithmetic", {"alpha": 1.0}, dtype="same")
    plan, path = stack.enter_context(opening.opened(made)), folder / "out.safetensors"
    layout = Layout(plan)

    def start(resume: bool) -> Opened:
        mine = writer(path, layout.entries, resume)
        stack.callback(mine.abandon)
        output = SameSink(FileSink(mine), mine, plan, layout)
        stack.callback(output.close)

        def end() -> dict[str, np.ndarray]:
            output.complete()
            mine.close(lambda folder: None)
            with checkpoint.open(path) as made:  # as what codes and scales stand for
                return dict(made)

        def again() -> Opened:
            output.close()
            mine.abandon()
            return start(True)

        return Opened(output, plan, end, again)

    return start(False)


def in_a_shard(stack: ExitStack, folder: Path) -> Opened:
    plan, path = planned(stack, folder, dtype="float32"), folder / "out.safetensors"
    (shard,) = Deal(plan, 10**9).shards
    output = ShardFile(path, shard, wanted(plan, shard), len(head(shard, {"format": "pt"})))
    stack.callback(output.close)

    def end() -> dict[str, np.ndarray]:
        data = head(shard, {"format": "pt"}, output.end())
        with open(path, "r+b") as file:
            file.write(data)
        with checkpoint.open(path) as made:
            digests.check(made, "it", 1)
            return dict(made)

    return Opened(output, plan, end)


OUTPUTS = {
    "memory": in_memory,
    "a file": in_files("out.safetensors"),
    "a folder of shards": in_files("out"),
    "quantised again": quantised_again,
    "a shard": in_a_shard,
}
CLASSES = {
    "memory": "merging.arrays.ArraySink",
    "a file": "merging.files.FileSink",
    "a folder of shards": "merging.files.FileSink",
    "quantised again": "merging.quantising.SameSink",
    "a shard": "merging.parts.writing.ShardFile",
}
#: Outputs from which nothing is read: they hold inner products, pieces to send, or nothing. That of
#: saving again is one of files that takes only what it knows (`test_merged`), that of adapters
#: holds a tensor at a time (`test_adapting`), and that of a module is one of `Putting` alone
#: (`test_consumers_contract`).
NOWHERE = {
    *("engine.outputs.Nowhere", "merging.shares._Pieces", "merging.saving._Same"),
    *("merging.dense._Gathered", "tune.learn.weights.streams.Module"),
}


def test_every_output_is_here() -> None:
    assert CLASSES.keys() == OUTPUTS.keys()
    assert {*CLASSES.values()} | NOWHERE == implementations.of("Output")


@pytest.fixture(params=OUTPUTS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    with ExitStack() as stack:
        found = OUTPUTS[request.param](stack, tmp_path)
        assert implementations.name_of(found.output) == CLASSES[request.param]
        yield found


def values_of(plan: Plan, seed: int = 0) -> Values:
    """Return values to write for each tensor, flat, in the dtype of the output."""
    rng = np.random.default_rng(seed)
    return {
        index: np.asarray(rng.integers(-100, 100, tensor.base.size) / 32).astype(dtype_of(tensor))
        for index, tensor in enumerate(plan.tensors)
    }


def dtype_of(tensor: Any) -> np.dtype:
    """Return the dtype that an output is given: float32 of what it quantises itself."""
    return np.dtype(np.float32) if tensor.target.layout else DTYPES[tensor.dtype]


def pieces(values: Values, seed: int = 0) -> list[Segment]:
    """Return segments of all tensors with entries, in an order that is not theirs."""
    rng = np.random.default_rng(seed)
    found = []
    for index, flat in values.items():
        ends = sorted({0, flat.size, *rng.integers(0, flat.size + 1, 3).tolist()})
        found += [Segment(index, ends[i], ends[i + 1], i) for i in range(len(ends) - 1)]
    return [found[i] for i in rng.permutation(len(found))]


def report_of(segment: Segment) -> SegmentReport:
    counts = Counter({"zeros": segment.start})
    return SegmentReport([segment.stop, 7], segment.start / 3, counts)


def write(output: Output, values: Values, segments: list[Segment]) -> None:
    for it in segments:
        output.write(it.index, it.start, values[it.index][it.start : it.stop])


def finish(output: Output, segments: list[Segment]) -> None:
    for it in segments:
        output.finish(it, report_of(it))


def assert_holds(opened: Opened, values: Values) -> None:
    """End an output, and assert that it holds values, or the nearest that have its layout."""
    found = opened.end()
    assert set(found) == {tensor.output for tensor in opened.plan.tensors}
    for index, tensor in enumerate(opened.plan.tensors):
        mine, wanted = found[tensor.output], values[index].reshape(tensor.base.shape)
        assert mine.shape == wanted.shape, tensor.name
        if tensor.target.layout:
            off = np.abs(mine.astype(np.float64) - wanted).max()
            assert off <= np.abs(wanted).max() / 16, tensor.name  # of 3 bits after the first
        else:
            assert mine.dtype == wanted.dtype, tensor.name
            assert mine.tobytes() == wanted.tobytes(), tensor.name


class TestOutputs:
    """What an output promises."""

    def test_pieces_in_any_order_are_the_whole(self, opened: Opened) -> None:
        values = values_of(opened.plan)
        segments = pieces(values)
        for it in segments:
            write(opened.output, values, [it])
            finish(opened.output, [it])
        assert_holds(opened, values)

    def test_threads_write_at_once(self, opened: Opened) -> None:
        values = values_of(opened.plan)
        segments, together = pieces(values), threading.Barrier(4)

        def work(number: int) -> None:
            together.wait(60)
            for it in segments[number::4]:
                write(opened.output, values, [it])
                finish(opened.output, [it])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert_holds(opened, values)

    def test_what_was_written_is_read(self, opened: Opened) -> None:
        values = values_of(opened.plan)
        segments = pieces(values)
        write(opened.output, values, segments)
        for it in segments:
            wanted = values[it.index][it.start : it.stop]
            found = opened.output.read(it.index, it.start, wanted.size)
            assert found.tobytes() == wanted.tobytes()
            if wanted.size > 2:  # a part of it, too
                found = opened.output.read(it.index, it.start + 1, wanted.size - 2)
                assert found.tobytes() == wanted[1:-1].tobytes()

    def test_what_is_read_is_a_copy(self, opened: Opened) -> None:
        values = values_of(opened.plan)
        write(opened.output, values, pieces(values))
        before = opened.output.read(0, 0, values[0].size)
        write(opened.output, {0: values[0] + np.ones((), values[0].dtype)}, [whole(values, 0)])
        assert before.tobytes() == values[0].tobytes()

    def test_an_array_may_be_used_again_once_it_was_written(self, opened: Opened) -> None:
        values = values_of(opened.plan)
        segments = pieces(values)
        for it in segments:
            mine = values[it.index][it.start : it.stop].copy()
            opened.output.write(it.index, it.start, mine)
            mine[:] = 0
            finish(opened.output, [it])
        assert_holds(opened, values)

    def test_entries_that_come_again_count(self, opened: Opened) -> None:
        first, values = values_of(opened.plan, seed=1), values_of(opened.plan)
        write(opened.output, first, pieces(first))
        segments = pieces(values, seed=2)
        write(opened.output, values, segments)
        finish(opened.output, segments)
        assert_holds(opened, values)

    def test_votes_may_be_written_again_after_the_end_of_a_tensor(self, opened: Opened) -> None:
        values = values_of(opened.plan)
        segments = pieces(values)
        write(opened.output, values, segments)
        for it in segments:
            report = report_of(it)
            report.election = Election(1, 1, 2)
            opened.output.finish(it, report)
        other = values_of(opened.plan, seed=5)
        some = [it for it in segments if it.stop - it.start > 2][::2]
        for it in some:
            part = slice(it.start + 1, it.stop - 1)
            values[it.index][part] = other[it.index][part]
            opened.output.write(it.index, it.start + 1, other[it.index][part])
            opened.output.finish(it, report_of(it))
        assert_holds(opened, values)

    def test_bytes_are_kept(self, opened: Opened) -> None:
        kept = [bytes([i]) * (i * 1000 + 1) for i in range(8)]
        with ThreadPoolExecutor(4) as pool:
            places = list(pool.map(opened.output.keep, kept))
        for at, data in reversed(list(zip(places, kept, strict=True))):
            assert at is not None and opened.output.kept(at, len(data)) == data

    def test_nothing_is_done_at_first(self, opened: Opened) -> None:
        assert [opened.output.is_done(it) for it in pieces(values_of(opened.plan))].count(None) > 9

    def test_what_was_done_is_not_done_again(self, opened: Opened) -> None:
        if opened.again is None:
            pytest.skip("an output in memory ends with its process")
        values = values_of(opened.plan)
        segments = sorted(pieces(values), key=lambda it: it.index)
        done = [it for it in segments if it.index < len(values) // 2]
        write(opened.output, values, done)
        finish(opened.output, done)
        half = [it for it in segments if it not in done][:1]
        write(opened.output, values, half)  # and not finished
        later = opened.again()
        for it in segments:
            found = later.output.is_done(it)
            assert found == (report_of(it) if it in done else None)
            longer = Segment(it.index, it.start, it.stop + 1, it.first_chunk)
            assert later.output.is_done(longer) is None
        rest = [it for it in segments if it not in done]
        write(later.output, values, rest)
        finish(later.output, rest)
        assert_holds(later, values)


def whole(values: Values, index: int) -> Segment:
    return Segment(index, 0, values[index].size, 0)


def test_an_output_of_nothing_takes_all_and_holds_nothing() -> None:
    output: Output = Nowhere()
    segment = Segment(0, 0, 3, 0)
    output.write(0, 0, np.ones(3))
    output.finish(segment, report_of(segment))
    assert output.is_done(segment) is None and output.keep(b"kept") is None


def test_a_report_is_plain_data_and_back() -> None:
    segment = Segment(0, 3, 9, 0)
    report = report_of(segment)
    assert SegmentReport.of(report.to_mapping()) == report
    report.election = Election(5, -1, 3)
    assert SegmentReport.of(report.to_mapping()) == report
