"""A plan carried out, into files or into memory."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from breadcrumbs import plan
from breadcrumbs.checkpoint import beside, mirrors, places
from breadcrumbs.checkpoint.adapters import peft
from breadcrumbs.checkpoint.hashing import FileHashes
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.places.outputs import Target
from breadcrumbs.checkpoint.uploading import Uploading
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Consumer, Writing
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.outputs import Output, SegmentReport, TensorReport
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.merging import (
    arrays,
    calibration,
    card,
    chat,
    estimate,
    inputs,
    licences,
    said,
    spaces,
)
from breadcrumbs.merging.opening import without_same_parts
from breadcrumbs.merging.provenance import Choice, check_unchanged, key, provenance, stamps_of
from breadcrumbs.merging.published import Names
from breadcrumbs.merging.quantising import Layout, SameSink
from breadcrumbs.merging.report import Report
from breadcrumbs.merging.resuming import Noted
from breadcrumbs.methods import algebra
from breadcrumbs.plan import Plan, rounded, variants
from breadcrumbs.plan.judgement import refuse
from breadcrumbs.plan.recipe import SAME
from breadcrumbs.plan.units import Segment


def to_arrays(
    it: Plan, *, threads: int | None = None, kernel: str = "auto"
) -> tuple[dict[str, np.ndarray], Report]:
    """Carry out a plan in memory; return the merged arrays and the report."""
    _, arrays, report = carried_out(it, threads=threads, kernel=kernel)
    return arrays, report


def carried_out(
    it: Plan,
    *,
    threads: int | None = None,
    kernel: str = "auto",
    progress: Callable[[int], None] = lambda nbytes: None,
) -> tuple[Plan, dict[str, np.ndarray], Report]:
    """Carry out a plan in memory; return it with what was chosen, the arrays and the report."""
    if is_quantised_again(it):
        raise RecipeError("dtype same: quantises what is written to files. Give an output.")
    began = time.perf_counter()
    algebra.of(it.recipe.device)  # which says where there is none
    it = without_same_parts(it)
    threads = estimate.threads(it, threads, None)
    facts = Facts()
    settings = {"threads": threads, "kernel": kernel, "progress": progress}
    it = spaces.settled(it, threads=threads, kernel=kernel)
    it = calibration.fixed(it, facts=facts, **settings)
    sink = arrays.ArraySink(it)
    rows = runner.write(it, sink, facts=facts, **settings)
    return it, sink.arrays, Report.of(it, rows, time.perf_counter() - began, kernel=kernel)


def to_files(
    it: Plan,
    output: str | os.PathLike[str],
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    shard_size: int = 5 * 10**9,
    kernel: str = "auto",
    resume: bool = False,
    force: bool = False,
    verify: bool = False,
    strict: bool = False,
    moved: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
    choice: Choice | None = None,
    consumer: Callable[[Output], Consumer] = Writing,
    wrap: Callable[[FileSink], FileSink] = lambda sink: sink,
) -> Report:
    """Carry out a plan into a folder or a ``.safetensors`` file, also of a bucket; return the
    report.

    max_memory: bytes of resident memory not to go beyond; fewer threads are used if need be.
    shard_size: bytes of a file of a folder at most. resume: go on with an interrupted merge.
    force: replace an existing output. verify: read the result again and compare digests.
    strict: whether warnings are errors, those of the plan before anything is read.
    moved: whether the output will lie elsewhere, as one at a URL, from where no path leads here.
    progress: called with numbers of input bytes done, and then of bytes uploaded.
    choice: how the models were chosen, for the metadata and the model card.
    consumer: makes what takes the merged segments, from the output. wrap: puts something around the
    sink that writes.

    The output takes its name only when it is whole. Raises OutputError, MismatchError.
    """
    began = time.perf_counter()
    on = algebra.of(it.recipe.device).name
    it = advised(it)
    if strict:
        refuse(it.warnings)
    it = without_same_parts(it)
    it, threads = estimate.fitted(it, threads, max_memory)
    target = target_of(it, os.fspath(output))
    if target is None:
        check_not_input(it, output := Path(output))
    else:  # before anything is read
        target.check(force=force, resume=resume)
    card.tokenizer_of(it)
    if it.target.folder:
        beside.files(it.target.folder)  # which says what cannot be read, before it is too late
    stamps = stamps_of(it)
    settings = {"threads": threads, "kernel": kernel, "progress": progress}
    cut = {file: c.cut.hash for c in it.inputs if c.cut for file in c.files}
    files = tuple(dict.fromkeys(f for c in it.inputs for f in c.files))
    mirrors.check_room(files, it.bytes_written if target and not resume else 0)
    hashes = FileHashes(file for file in files if file not in cut)
    digests = FileDigests(files, hashes.known | cut)
    inputs.check(it, digests)  # what is known before anything is read; the rest at the end
    facts = Facts()
    it = spaces.settled(it, threads=threads, kernel=kernel)
    it = calibration.fixed(it, facts=facts, **settings)
    if note := inputs.other_version(it):
        it = replace(it, notes=(*it.notes, note))
    names = Names(it, Path("/") if target or moved else Path(output))
    metadata = {"format": "pt", "breadcrumbs": provenance(it, digests, choice, names, on)}
    layout = Layout(it) if is_quantised_again(it) else None
    begin = partial(Uploading, target, told=progress) if target else partial(Writer, Path(output))
    writer = begin(
        layout.entries if layout else entries(it),
        metadata,
        shard_size=shard_size,
        key=key(it, shard_size, stamps),
        force=force,
        resume=resume,
        layout=variants.layout(it),
    )
    if not writer.single:
        it = replace(it, notes=(*it.notes, *variants.said(it)))
    sink, again = wrap(FileSink(writer)), None
    try:
        if layout:
            again = SameSink(sink, writer, it, layout)
        noted = Noted(writer, it.sizes)
        told = noted.facts()
        told.cuts |= facts.cuts
        rows = runner.run(
            it,
            consumer(again or sink),
            digests=digests,
            facts=told,
            found=noted.note,
            **settings,
        )
        if again:
            again.complete()
        check_unchanged(stamps, stamps_of(it))
        inputs.check(it, digests)
        hashes.keep(digests.digests)
        if verify:
            writer.verify()
        seconds = time.perf_counter() - began
        report = Report.of(it, rows, seconds, digests.models(it), kernel)
        report.output = target.url if target else os.fspath(output)
        check_added(it, rows)
        if report.norm and not again:
            warn_of_rounding(it, report, sink.read)
        if strict:
            refuse(report.warnings)
        if again:
            report.lost = math.sqrt(again.lost) / report.norm if report.norm else 0.0
        metadata["breadcrumbs"] = provenance(it, digests, choice, names, on)
        story = choice.to_markdown() if choice else ""
        writer.close(lambda folder: card.add(folder, it, report, digests, names, story))
        inputs.remember(it, digests, names)
    except (Nothing, inputs.Changed):
        writer.discard()
        raise
    except BaseException:
        if again:
            again.close()
        writer.abandon()
        raise
    report.seconds = time.perf_counter() - began
    return report


def advised(it: Plan) -> Plan:
    """Return a plan with what is to be said of the files beside the weights: licences that do not
    go together, the chat template. RecipeError where there is no such template."""
    cards = said.of_all(it.origins)
    template = chat.chosen(it)
    warnings = (*it.warnings, *licences.warnings(cards), *chat.said(it, template))
    notes = it.notes
    if it.recipe.chat_template and not template:
        notes = (*notes, "chat_template: no model has one, so none is written")
    unique = {"warnings": warnings, "notes": notes}
    return replace(it, **{key: tuple(dict.fromkeys(lines)) for key, lines in unique.items()})


class Nothing(MismatchError):
    """The merged model would be the base."""


def warn_of_rounding(it: Plan, report: Report, read: Callable[[int, int, int], np.ndarray]) -> None:
    """Add a warning to a report if the output is the base. read: entries of the output."""
    if rounded.is_base(it, read):
        report.warnings.append(
            "the step is so small that rounding removes all of it, so the result is the base: give"
            " --dtype float32, or a larger step"
        )


def check_added(it: Plan, rows: Sequence[TensorReport]) -> None:
    """Raise `Nothing` if a merge adds nothing to the base, though it was asked to.

    rows: what was done to its tensors.
    """
    if it.coordinates is not None:
        check_added(it.coordinates.plan, it.coordinates.rows)
        return
    others = [tensor for tensor in it.tensors if tensor.copied]
    taken = [t for t in others if t.name not in it.base or t.target is not t.base]
    asked = [
        tensor
        for tensor in it.merged
        if tensor.values.get("alpha") != 0 and any(own.weight for own in tensor.own)
    ]
    same = not it.merged and any(tensor.copied == "unchanged" for tensor in others)
    if taken or not (asked or same) or any(row.squares for row in rows):
        return
    why = "no weight of the task vectors is kept; are the parameters what you intended?"
    if all(m is None or plan.equal(t.base, m) for t in it.merged for m in t.models):
        models = ", ".join(model.label for model in it.models)
        why = f"{models} and the base have the same weights. Give fine-tunings of it."
    raise Nothing(f"{it.base.label}: this merge adds nothing to it: {why}")


def entries(it: Plan) -> list[Entry]:
    """Return the tensors of the output as the writer takes them."""
    return [Entry(tensor.output, tensor.dtype, tensor.base.shape) for tensor in it.tensors]


def is_quantised_again(it: Plan) -> bool:
    """Return whether a merge writes codes and scales again, as its base has them."""
    return it.recipe.dtype == SAME and bool(it.target.quantised)


def check_not_input(it: Plan, output: Path) -> None:
    """Refuse an output that is an input, lies in the folder of one, or holds one."""
    out = os.path.normcase(os.path.realpath(output))
    for source in it.inputs:
        adapter = source.inserted.folder if source.inserted else None
        mine = adapter if adapter and (adapter / peft.CONFIG).is_file() else None
        for path in (source.folder, mine, *source.files):
            if path is None:
                continue
            real = os.path.normcase(os.path.realpath(path))
            if _inside(out, real) or _inside(real, out):
                raise RecipeError(
                    f"{output}: is one of the models to merge, or lies in its folder, or contains"
                    " it. Inputs are never overwritten: give another output."
                )


def target_of(it: Plan, output: str) -> Target | None:
    """Return what a plan is written to if that is a URL, which no input is, holds or lies in; None
    for a path."""
    if not places.is_output(output):
        return None
    target = Target(places.output(output))
    for source in it.inputs:
        for file in source.files:
            if not (url := mirrors.url_of(file)):
                continue
            folder = f"{url}/"
            if source.folder is not None and source.folder in file.parents:
                folder = url.removesuffix(file.relative_to(source.folder).as_posix())
            if f"{target.url}/".startswith(folder) or folder.startswith(f"{target.url}/"):
                raise RecipeError(
                    f"{target.url}: is one of the models to merge, or lies in its folder, or"
                    " contains it. Inputs are never overwritten: give another output."
                )
    return target


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


class FileSink:
    """Hands merged segments to a `Writer`, and tells which ones an earlier run finished."""

    def __init__(self, writer: Writer):
        self.writer = writer

    def is_done(self, segment: Segment) -> SegmentReport | None:
        note = self.writer.done.get((segment.index, segment.start))
        if note is None or note["stop"] != segment.stop:
            return None
        return SegmentReport.of(note)

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        self.writer.write(index, start, values)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        self.writer.finished(segment.index, segment.start, segment.stop, report.to_mapping())

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        notes = [report.to_mapping() for report in reports]
        self.writer.write_several([segment.index for segment in segments], values, notes)

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        return self.writer.read(index, start, n)

    def keep(self, data: bytes) -> int:
        return self.writer.keep(data)

    def kept(self, at: int, size: int) -> bytes:
        return self.writer.kept(at, size)
