"""A fine-tuning -> a task file: the entries that a transform keeps, block by block."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from breadcrumbs import plan as plans
from breadcrumbs.checkpoint import durable, hashing, origin, products, quantised
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, SUBBYTE, Checkpoint, Tensor
from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Reading
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.errors import MismatchError, OutputError, RecipeError
from breadcrumbs.kernels import choose
from breadcrumbs.merging import comparison, estimate, files, opening
from breadcrumbs.methods import parameters, registry
from breadcrumbs.plan import Plan, TensorPlan, lowering
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.units import Segment
from breadcrumbs.taskfile import encodings, writing
from breadcrumbs.taskfile import factors as taskfile_factors
from breadcrumbs.taskfile.about import About, BaseReference, TaskTensor
from breadcrumbs.taskfile.encodings import Encoding
from breadcrumbs.taskfile.encodings.exact import EXACT
from breadcrumbs.taskfile.writing import Loss
from breadcrumbs.threads import Task, run_tasks
from breadcrumbs.version import __version__


def pack(
    base: opening.Source,
    finetuned: opening.Source,
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
    missing: str | Sequence[str] = "error",
    extra: str | Sequence[str] = "error",
    rename: str | Sequence[str] = (),
    seed: int = 0,
    threads: int | None = None,
    force: bool = False,
    sync: bool = True,
    strict: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
    **parameters: Any,
) -> About:
    """Write what ``transform`` keeps of a fine-tuning to a task file; return what that says.

    transform, parameters: as for `breadcrumbs.compare`; ``none`` keeps all that changed. encoding:
    of the values, with its parameters after a colon: ``exact``, ``int8``, ``int4``, ``ternary``,
    ``tvq:bits=4``, ``tsv:rank=16``. name, base_name: of the task, and what the base is called where
    the file tells what it needs; the last parts of the paths unless given. author, license: to be
    written as they are. exclude, only, missing, extra, rename, seed, threads: as for
    `breadcrumbs.merge`. force: replace a file. sync: wait until it is on the disk. strict: whether
    warnings are errors, as there. progress: called with numbers of input bytes done.
    """
    made = recipe(
        opening.label(base, "base"),
        opening.named([finetuned], [name] if name else None),
        transform,
        parameters,
        exclude=opening.globs(exclude),
        only=opening.globs(only),
        missing=missing,
        extra=extra,
        rename=opening.globs(rename),
        seed=seed,
    )
    with opening.opened(made, [base, finetuned], on_base=True) as plan, durable.syncing(sync):
        return of(
            judged(plan, strict, packing=True) if strict else plan,
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
    made = comparison.recipe(base, models, transform, given, **settings)
    if not lowering.of(registry.get(made.method)).masks:
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
    output, made = Path(output), encodings.asked(encoding)
    for source in plan.sources:
        quantised.refuse(source, "a task file")
    writing.check_output(output, force)
    files.check_not_input(plan, output)
    if made.rank and plan.method.name.partition("+")[0] != "none":
        raise RecipeError(
            f"task pack: encoding {encoding} takes whole task vectors. Pack with transform none."
        )
    threads = estimate.threads(plan, threads, None)
    found = _factors(plan, made, threads) if made.rank else {}
    tensors = (
        replace(tensor, copied=_PRODUCT) if i in found else _with_others(tensor)
        for i, tensor in enumerate(plan.tensors)
    )
    plan = replace(plan, tensors=tuple(tensors))
    try:
        with tempfile.TemporaryFile(dir=output.parent or ".") as spool:
            packing = Packing(plan, spool, made, found)
            runner.run(plan, packing, threads=threads, progress=progress)
            base = reference(plan.base, threads, base_name)
            return _write(packing, output, base, author, license, force)
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror or error}. Give another output, or check the disk."
        ) from None


def _with_others(tensor: TensorPlan) -> TensorPlan:
    """Return the plan of a tensor; what is no weight but changed is packed whole."""
    (model,) = tensor.models
    if tensor.copied not in _OTHERS or model is None or plans.equal(tensor.base, model):
        return tensor
    if model.dtype in SUBBYTE:
        raise MismatchError(
            f"tensor {tensor.name!r} of {model.dtype} is not the base's, and entries of less than a"
            f" byte cannot be packed. Give --exclude {tensor.name!r} to leave it out."
        )
    return replace(tensor, copied=_WHOLE)


_OTHERS = ("not a weight", "buffer", "statistic")
_WHOLE = "not a weight, but changed"
_PRODUCT = "packed as a product"


def _factors(plan: Plan, encoding: Encoding, threads: int) -> dict[int, tuple[Factors, Loss]]:
    """Return the factors of the matrices that are smaller so, by the number of the tensor."""
    found: dict[int, tuple[Factors, Loss]] = {}

    def task(index: int, base: Tensor, model: Tensor) -> Task:
        def make() -> list[Task]:
            made = taskfile_factors.of(base, model, encoding, plan.models[0].label)
            if made is not None:
                weights = base.read().reshape(-1)
                back = products.added(weights, made, 0, DTYPES[model.dtype])
                found[index] = made, writing.loss(model.read().reshape(-1), back, weights)
            return []

        return make

    tasks = [
        task(index, tensor.base, tensor.models[0])
        for index, tensor in enumerate(plan.tensors)
        if not tensor.copied and len(tensor.base.shape) == 2 and tensor.models[0] is not None
    ]
    with one_blas_thread():
        run_tasks(tasks, threads)
    return dict(sorted(found.items()))


@dataclass
class _Block:
    """A block being put together. left: entries that are still to come."""

    keep: np.ndarray
    values: np.ndarray
    left: int


@dataclass(frozen=True)
class _Row:
    """A finished block: its row of the table, and where its bytes lie in the spool.

    squares: of the kept entries of the task vector and of all; none where nothing was cut.
    """

    numbers: writing.Row
    at: int
    size: int
    loss: Loss
    squares: tuple[float, float] | None


class Packing(Reading):
    """A consumer that writes blocks where others merge.

    spool: where their bytes go. encoding: of the values. factors: of matrices that are packed as
    products, by the number of the tensor. rows: of finished blocks, by tensor and block.
    """

    def __init__(
        self,
        plan: Plan,
        spool: IO[bytes],
        encoding: Encoding,
        factors: dict[int, tuple[Factors, Loss]],
    ):
        self.plan, self.spool, self.encoding, self.factors = plan, spool, encoding, factors
        self.rows: dict[tuple[int, int], _Row] = {}
        self._open: dict[tuple[int, int], _Block] = {}
        self._end = 0
        self._turn = threading.Lock()

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        if tensor.copied == _WHOLE:
            self._whole(tensor, segment)
        return SegmentReport([0])

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        if terms.models:
            self._pack(terms, segment)
        return SegmentReport([0])

    def _whole(self, tensor: TensorPlan, segment: Segment) -> None:
        model = tensor.models[0]
        assert model is not None
        values = np.empty(segment.stop - segment.start, DTYPES[model.dtype])
        model.read_into(segment.start, values)
        self._take(segment.index, segment.start, np.ones(values.size, np.uint8), values, None)

    def _pack(self, it: Terms, segment: Segment) -> None:
        start, n = segment.start, segment.stop - segment.start
        (model,) = it.models
        rows = it.load(segment)
        it.check(rows, slice(0, 1), start)
        keep = it.context.space.buffer("keep", (n,), np.uint8)
        self._keep(it, rows, segment, keep)
        values = rows[1].view(DTYPES["BF16"]) if rows.dtype == np.uint16 else rows[1]
        base = rows[0].view(DTYPES["BF16"]) if rows.dtype == np.uint16 else rows[0]
        dtype = DTYPES[model.dtype]
        self._take(segment.index, start, keep, values.astype(dtype, copy=False), base)

    def _keep(self, it: Terms, rows, segment: Segment, keep: np.ndarray) -> None:
        """Set ``keep`` to what is packed of the rows of a segment."""
        mine = it.kernels
        cut = True
        if it.lowered.band:
            for start, n, known in it.chunks(segment):
                run = slice(start - segment.start, start - segment.start + n)
                unit, found = it.cuts_of(rows[:, run], slice(0, 1), known)
                mine.keep_band(rows[0, run], rows[1, run], unit, found[:, 0], keep[run])
        elif it.lowered.draw:
            keys, limits = it.draws_of()
            keep[:] = mine.drawn(keep.size, keys, segment.start, limits, 0)
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
                own = None if base is None else base[mine]
                self._write_block(index, number, keep[mine], values[mine], own)
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
            self._write_block(index, number, block.keep, block.values, None)

    def _write_block(self, index: int, number: int, keep, values, base) -> None:
        """Write a whole block to the spool. base: its weights; None: they are read if needed."""
        at = self._places(keep)
        whole = self.plan.tensors[index].copied == _WHOLE
        coder = EXACT if whole or self.encoding.rank else self.encoding
        cut = not whole and not self.plan.lowered.keeps_all
        lossy = not (whole or self.encoding.lossless)
        kept, weights, loss, squares = _at(values, at), None, Loss(), None
        if cut or lossy:
            base = self._base(index, number) if base is None else base
            weights = _at(base, at)
            if cut:
                squares = writing.squares(kept, weights), writing.squares(values, base)
        if not lossy:
            weights = None
        if weights is not None and not coder.lossless:  # zeros of another sign: nothing to code
            moved = np.flatnonzero(kept != weights)
            at, weights, kept = _at(at, moved), _at(weights, moved), _at(kept, moved)
        row, data = writing.block(at, keep.size, kept, weights, coder)
        if weights is not None and at.size:
            second = memoryview(data)[row[2] :]
            back = coder.decode(row[3], second, at.size, values.dtype, weights)
            loss = writing.loss(kept, back, weights)
        with self._turn:
            where, self._end = self._end, self._end + len(data)
            self.spool.seek(where)
            self.spool.write(data)
        self.rows[index, number] = _Row(row, where, len(data), loss, squares)

    def _places(self, keep: np.ndarray) -> np.ndarray:
        """Return where entries are kept, (k,) uint32."""
        found = np.empty(np.count_nonzero(keep), np.uint32)
        choose().places(keep, found)
        return found

    def _base(self, index: int, number: int) -> np.ndarray:
        tensor = self.plan.tensors[index].base
        n = min(BLOCK, tensor.size - number * BLOCK)
        weights = np.empty(n, DTYPES[tensor.dtype])
        tensor.read_into(number * BLOCK, weights)
        return weights


def _at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the values at ascending places, which may be all."""
    if places.size == values.size:
        return values
    if values.itemsize not in (2, 4):
        return values[places]
    out, raw = np.empty(places.size, values.dtype), f"u{values.itemsize}"
    choose().take(values.view(raw), places, out.view(raw))
    return out


def _write(
    packing: Packing, output: Path, base: BaseReference, author: str, license: str, force: bool
) -> About:
    """Write the task file from the finished blocks."""
    plan = packing.plan
    recipe = plan.recipe
    tensors: dict[str, TaskTensor] = {}
    tables: dict[str, bytes] = {}
    parts: list[writing.Part] = []
    losses = []
    for index, tensor in enumerate(plan.tensors):
        model = tensor.models[0]
        if index in packing.factors:
            found, loss = packing.factors[index]
            assert model is not None
            tensors[tensor.name] = writing.factored(
                tensor.name, model.dtype, tensor.base.shape, found
            )
            parts += writing.factors(tensor.name, found)
            losses.append(loss)
            continue
        rows = [
            packing.rows[index, number]
            for number in range(-(-tensor.base.size // BLOCK))
            if (index, number) in packing.rows
        ]
        kept = sum(row.numbers[0] for row in rows)
        if kept:
            assert model is not None
            squares = [row.squares for row in rows if row.squares]
            share = writing.share(squares) if squares else 1.0
            of = tensor.name, model.dtype, tensor.base.shape, kept
            exact = tensor.copied == _WHOLE and not packing.encoding.lossless
            tensors[tensor.name] = TaskTensor(*of, share=share, exact=exact)
            numbers = [row.numbers for row in rows]
            tables[tensor.name] = writing.table(numbers)
            parts += writing.blocks(tensor.name, numbers, partial(_spooled, packing.spool, rows))
            losses += [row.loss for row in rows]
    if not tensors:
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
        packing.encoding.name,
        weights(plan.base),
        tensors,
        author,
        license,
        MADE_BY,
        None if packing.encoding.lossless else writing.error(losses),
        tied={t.name: t.tied for t in plan.tensors if t.tied and t.tied in tensors},
    )
    writing.write(output, said, tables, parts, force)
    return said


MADE_BY = f"breadcrumbs {__version__}"


def weights(base: Checkpoint) -> int:
    """Return how many weights a base has, copies of tied ones too."""
    return sum(tensor.size for tensor in base.tensors.values() if tensor.is_weight)


def _spooled(spool: IO[bytes], rows: list[_Row]) -> Iterator[bytes]:
    for row in rows:
        spool.seek(row.at)
        yield spool.read(row.size)


def _settings(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return the transform of a plan and its parameters, completed, as plain data."""
    method = plan.method
    values = method.stated(plan.recipe.parameters)
    mine = {key: values[key] for key in method.transform.parameters if key in values}
    if plan.lowered.band:
        mine["granularity"] = plan.lowered.band.granularity(values)
    return method.name.partition("+")[0], {k: parameters.written(v) for k, v in mine.items()}


def reference(base: Checkpoint, threads: int = 0, name: str = "") -> BaseReference:
    """Return what a task file says of its base. name: if it is not to be called as it is found."""
    repo, _, revision = origin.at_commit(base).partition("@")
    label = name or repo or os.path.basename(os.path.abspath(base.label)) or base.label
    return BaseReference(label, revision or None, hashing.model_hash(base, threads))
