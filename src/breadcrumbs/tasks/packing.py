"""A fine-tuning -> a task file: the entries that a transform keeps, block by block."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from blake3 import blake3

from breadcrumbs import analysis, hashing, kernels, merging, methods, parameters, sizes
from breadcrumbs import plan as plans
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.checkpoint.writer import Entry, header
from breadcrumbs.engine import Engine
from breadcrumbs.errors import MismatchError, OutputError, RecipeError
from breadcrumbs.kernels import plain
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.schedule import Task, run_tasks
from breadcrumbs.sink import Nowhere, SegmentReport
from breadcrumbs.tasks import about, encodings, positions, reader
from breadcrumbs.tasks.about import BLOCK, About, BaseReference, TaskTensor
from breadcrumbs.tasks.encodings import Encoding
from breadcrumbs.tensors import Merging
from breadcrumbs.transforms import Band, Chances, Draw, Fitted
from breadcrumbs.version import __version__
from breadcrumbs.work import Job, Segment


def pack(
    base: merging.Source,
    finetuned: merging.Source,
    output: str | os.PathLike[str],
    *,
    transform: str = "breadcrumbs",
    encoding: str = "exact",
    name: str = "",
    base_name: str = "",
    author: str = "",
    license: str = "",
    exclude: str | list[str] | tuple[str, ...] = (),
    only: str | list[str] | tuple[str, ...] = (),
    missing: str = "error",
    extra: str = "error",
    seed: int = 0,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
    **parameters: Any,
) -> About:
    """Write what ``transform`` keeps of a fine-tuning to a task file; return what that says.

    transform, parameters: as for `breadcrumbs.compare`; ``none`` keeps all that changed. encoding:
    of the values. name, base_name: of the task, and what the base is called where the file tells
    what it needs; the last parts of the paths unless given. author, license: to be written as they
    are. exclude, only, missing, extra, seed, threads: as for `breadcrumbs.merge`. force: replace a
    file. progress: called with numbers of input bytes done.
    """
    made = recipe(
        merging.label(base, "base"),
        merging.named([finetuned], [name] if name else None),
        transform,
        parameters,
        exclude=merging.globs(exclude),
        only=merging.globs(only),
        missing=missing,
        extra=extra,
        seed=seed,
    )
    with merging.opened(made, [base, finetuned]) as plan:
        return of(
            plan,
            output,
            encoding=encoding,
            base_name=base_name,
            author=author,
            license=license,
            threads=threads,
            force=force,
            progress=progress,
        )


def recipe(base: str, models: Any, transform: str, given: dict[str, Any], **settings: Any) -> Any:
    """Return the recipe whose plan `of` packs; RecipeError for what cannot be packed."""
    made = analysis.recipe(base, models, transform, given, **settings)
    kind = methods.get(made.method).transform
    if isinstance(kind, Chances | Fitted):
        raise RecipeError(
            f"task pack: transform {transform} changes the weights that it keeps, so they cannot be"
            " packed as they are. Pack with transform none, and merge with it."
        )
    if given.get("rescale") == "l1":
        raise RecipeError(
            "task pack: rescale l1 needs the whole task vector on merging. Pack with transform"
            " none, and merge with it."
        )
    return made


def of(
    plan: Plan,
    output: str | os.PathLike[str],
    *,
    encoding: str = "exact",
    base_name: str = "",
    author: str = "",
    license: str = "",
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> About:
    """Pack the one model of a plan, which reads weights and writes a task file."""
    output = Path(output)
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: a task is written to one file. Give NAME.safetensors.")
    if output.exists() and not force:
        raise OutputError(f"{output}: exists. Give another output, or --force to replace it.")
    merging.check_not_input(plan, output)
    plan = replace(plan, tensors=tuple(_with_counters(tensor) for tensor in plan.tensors))
    threads = sizes.threads(plan, threads, None)
    try:
        with tempfile.TemporaryFile(dir=output.parent or ".") as spool:
            engine = _Packing(plan, Nowhere(), progress=progress)
            engine.spool, engine.encoding = spool, encodings.get(encoding)
            run_tasks(engine.tasks(), threads, engine.stop)
            base = reference(plan.base, threads, base_name)
            return _write(engine, output, base, author, license)
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror or error}. Give another output, or look at the disk."
        ) from None


def _with_counters(tensor: TensorPlan) -> TensorPlan:
    """Return the plan of a tensor; what is no weight but changed is packed whole."""
    (model,) = tensor.models
    if tensor.copied != "not a weight" or model is None or plans.equal(tensor.base, model):
        return tensor
    return replace(tensor, copied=_WHOLE)


_WHOLE = "not a weight, but changed"


@dataclass
class _Block:
    """A block being put together. left: entries that are still to come."""

    keep: np.ndarray
    values: np.ndarray
    left: int


@dataclass(frozen=True)
class _Row:
    """A finished block: its row of the table, and where its bytes lie in the spool."""

    numbers: tuple[int, ...]
    at: int
    size: int


@dataclass
class _Packing(Engine):
    """An engine that writes blocks where others merge."""

    spool: IO[bytes] = field(init=False)
    encoding: Encoding = field(init=False)
    rows: dict[tuple[int, int], _Row] = field(default_factory=dict)
    _open: dict[tuple[int, int], _Block] = field(default_factory=dict)
    _end: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def _writes(
        self, job: Job, segments: list[Segment], cuts: np.ndarray | None, known: dict[int, Any]
    ) -> list[Task]:
        def task(segment: Segment) -> Task:
            def write() -> list[Task]:
                tensor = self.plan.tensors[segment.index]
                if tensor.copied == _WHOLE:
                    self._whole(tensor, segment)
                elif not tensor.copied:
                    self._pack(Merging(self, job, tensor), segment, cuts)
                self._report(segment, SegmentReport([0]))
                return []

            return write

        return [task(segment) for segment in segments]

    def _whole(self, tensor: TensorPlan, segment: Segment) -> None:
        model = tensor.models[0]
        assert model is not None
        values = np.empty(segment.stop - segment.start, DTYPES[model.dtype])
        model.read_into(segment.start, values)
        self._take(segment.index, segment.start, np.ones(values.size, np.uint8), values, None)

    def _pack(self, it: Merging, segment: Segment, cuts: np.ndarray | None) -> None:
        if not it.models:
            return
        start, n = segment.start, segment.stop - segment.start
        (model,) = it.models
        rows = self.load([it.tensor.base, model], start, n, it.dtype)
        it.check(rows, slice(0, 1), start)
        keep = self.buffer("keep", (n,), np.uint8)
        self._keep(it, rows, segment, cuts, keep)
        values = rows[1].view(DTYPES["BF16"]) if rows.dtype == np.uint16 else rows[1]
        base = rows[0].view(DTYPES["BF16"]) if rows.dtype == np.uint16 else rows[0]
        dtype = DTYPES[model.dtype]
        self._take(segment.index, start, keep, values.astype(dtype, copy=False), base)

    def _keep(self, it: Merging, rows, segment: Segment, cuts, keep: np.ndarray) -> None:
        """Set ``keep`` to what is packed of the rows of a segment."""
        transform, mine = self.plan.method.transform, kernels.of_kept(it.kernels)
        cut = True
        if isinstance(transform, Band):
            for i, at in enumerate(range(0, keep.size, it.job.chunk)):
                run = slice(at, min(keep.size, at + it.job.chunk))
                known = None
                if cuts is not None:
                    known = cuts[segment.first_chunk + i, it.who, :4][None]
                unit, found = it.cuts_of(rows[:, run], slice(0, 1), known)
                mine.keep_band(rows[0, run], rows[1, run], unit, found[:, 0], keep[run])
        elif isinstance(transform, Draw):
            keys, limits = it.draws_of()
            keep[:] = plain.drawn(keep.size, keys, segment.start, limits, 0)
        else:
            cut = False
        mine.changed(rows[0], rows[1], keep, cut)

    def _take(self, index: int, start: int, keep, values, base) -> None:
        """Put entries of a tensor from ``start`` on into blocks, and write those now whole."""
        size = self.plan.tensors[index].base.size
        stop = start + keep.size
        for number in range(start // BLOCK, -(-stop // BLOCK)):
            begin, end = number * BLOCK, min((number + 1) * BLOCK, size)
            low, high = max(begin, start), min(end, stop)
            mine = slice(low - start, high - start)
            if high - low == end - begin:
                self._write_block(index, number, keep[mine], values[mine], base, mine)
                continue
            with self._turn:
                block = self._open.get((index, number))
                if block is None:
                    fresh = np.empty(end - begin, np.uint8), np.empty(end - begin, values.dtype)
                    block = self._open[index, number] = _Block(*fresh, end - begin)
            block.keep[low - begin : high - begin] = keep[mine]
            block.values[low - begin : high - begin] = values[mine]
            with self._turn:
                block.left -= high - low
                if block.left:
                    continue
                del self._open[index, number]
            self._write_block(index, number, block.keep, block.values, None, mine)

    def _write_block(self, index: int, number: int, keep, values, base, mine: slice) -> None:
        at = np.flatnonzero(keep).astype(np.uint32)
        if not at.size:
            row, data = (0,) * 5, b""
        else:
            code, first = positions.encode(at, keep.size)
            weights = None
            if self.encoding.needs_base:
                weights = self._base(index, number) if base is None else base[mine]
                weights = weights[at]
            kind, second = self.encoding.encode(values[at], weights)
            row, data = (at.size, code, len(first), kind, len(second)), first + second
        numbers = (*row, *np.frombuffer(blake3(data).digest(16), "<u4").tolist())
        with self._turn:
            where, self._end = self._end, self._end + len(data)
            self.spool.seek(where)
            self.spool.write(data)
        self.rows[index, number] = _Row(numbers, where, len(data))

    def _base(self, index: int, number: int) -> np.ndarray:
        tensor = self.plan.tensors[index].base
        n = min(BLOCK, tensor.size - number * BLOCK)
        weights = np.empty(n, DTYPES[tensor.dtype])
        tensor.read_into(number * BLOCK, weights)
        return weights


def _write(engine: _Packing, output: Path, base: BaseReference, author: str, license: str) -> About:
    """Write the task file from the finished blocks, and give it its name when it is whole."""
    plan = engine.plan
    recipe = plan.recipe
    kept: list[tuple[TensorPlan, list[_Row]]] = []
    for index, tensor in enumerate(plan.tensors):
        rows = [
            engine.rows[index, number]
            for number in range(-(-tensor.base.size // BLOCK))
            if (index, number) in engine.rows
        ]
        if any(row.numbers[0] for row in rows):
            kept.append((tensor, rows))
    if not kept:
        raise MismatchError(
            f"{plan.models[0].label}: nothing is kept of it: has it changed {plan.base.label}?"
        )
    transform, settings = _settings(plan)
    said = About(
        recipe.models[0].name,
        base,
        transform,
        settings,
        recipe.seed,
        engine.encoding.name,
        sum(tensor.size for tensor in plan.base.tensors.values() if tensor.is_weight),
        {tensor.name: _described(tensor, rows, engine.encoding) for tensor, rows in kept},
        author,
        license,
        f"breadcrumbs {__version__}",
    )
    tables = {t.name: np.array([r.numbers for r in rows], "<u4").tobytes() for t, rows in kept}
    text = about.text(said)
    metadata = {about.KEY: text, about.HASH: about.digest(text, tables)}
    names = [tensor.name for tensor, _ in kept]
    entries = [Entry(reader.BLOCKS + t.name, "U32", (len(rows), about.COLUMNS)) for t, rows in kept]
    entries += [
        Entry(reader.DATA + t.name, "U8", (sum(row.size for row in rows),)) for t, rows in kept
    ]
    partial_ = output.with_name(output.name + ".partial")
    try:
        with open(partial_, "wb") as file:
            file.write(header(entries, metadata))
            for name in names:
                file.write(tables[name])
            for row in (row for _, rows in kept for row in rows):
                engine.spool.seek(row.at)
                file.write(engine.spool.read(row.size))
        os.replace(partial_, output)
    except BaseException:
        with suppress(OSError):
            partial_.unlink()
        raise
    return said


def _settings(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return the transform of a plan and its parameters, completed, as plain data."""
    method = plan.method
    values = method.stated(plan.recipe.parameters)
    mine = {key: values[key] for key in method.transform.parameters if key in values}
    if isinstance(method.transform, Band):
        mine["granularity"] = method.transform.granularity(values)
    return method.name.partition("+")[0], {k: parameters.written(v) for k, v in mine.items()}


def reference(base: Checkpoint, threads: int = 0, name: str = "") -> BaseReference:
    """Return what a task file says of its base. name: if it is not to be called as it is found."""
    repo, _, revision = (base.repo or "").partition("@")
    label = name or repo or os.path.basename(os.path.abspath(base.label)) or base.label
    return BaseReference(label, revision or None, hashing.model_hash(base, threads))


def _described(tensor: TensorPlan, rows: list[_Row], encoding: Encoding) -> TaskTensor:
    model = tensor.models[0]
    assert isinstance(model, Tensor)
    number = sum(row.numbers[0] for row in rows)
    dtype = model.dtype if tensor.copied else encoding.dtype(model.dtype)
    return TaskTensor(tensor.name, dtype, tensor.base.shape, number)
