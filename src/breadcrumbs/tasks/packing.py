"""A fine-tuning -> a task file: the entries that a transform keeps, block by block."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from breadcrumbs import plan as plans
from breadcrumbs.checkpoint import durable, hashing, origin, products, quantised
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, SUBBYTE, Checkpoint, Tensor
from breadcrumbs.engine import runner
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.errors import MismatchError, OutputError, RecipeError
from breadcrumbs.merging import comparison, estimate, files, opening
from breadcrumbs.methods import parameters, registry
from breadcrumbs.plan import Plan, TensorPlan, lowering
from breadcrumbs.plan.judgement import judged
from breadcrumbs.taskfile import encodings, writing
from breadcrumbs.taskfile import factors as taskfile_factors
from breadcrumbs.taskfile.about import About, BaseReference, TaskTensor
from breadcrumbs.taskfile.encodings import Encoding
from breadcrumbs.taskfile.writing import Loss
from breadcrumbs.tasks.blocks import WHOLE, Packing, Row
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
    return replace(tensor, copied=WHOLE)


_OTHERS = ("not a weight", "buffer", "statistic")
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
            exact = tensor.copied == WHOLE and not packing.encoding.lossless
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


def _spooled(spool: IO[bytes], rows: list[Row]) -> Iterator[bytes]:
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
