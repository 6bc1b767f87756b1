"""Task files, or fine-tunings, -> what other programs read: a LoRA adapter, or a patch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs import plan as plans
from breadcrumbs.checkpoint import durable, products, tied, whole
from breadcrumbs.checkpoint.adapters import peft
from breadcrumbs.checkpoint.outfile import Entry, header
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.engine.workspace import one_blas_thread
from breadcrumbs.errors import MismatchError, OutputError, RecipeError, listing
from breadcrumbs.merging import adapter_folder, files, opening
from breadcrumbs.merging.adapter_folder import Made
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.taskfile import factors, writing
from breadcrumbs.tasks import packing, unpacking

KINDS = ("dense", "lora", "patch")
_ADVICE = "Give --exclude for what is to stay the base's, or export to dense."


def export(
    base: opening.Source,
    task: opening.Source,
    output: str | os.PathLike[str],
    *,
    to: str,
    rank: int = 16,
    exclude: str | list[str] | tuple[str, ...] = (),
    force: bool = False,
    sync: bool = True,
) -> dict[str, float] | None:
    """Write what a task file (or a fine-tuning) stands for, as another program reads it.

    to: ``dense``, the whole fine-tuning; ``lora``, the folder of an adapter for PEFT, of ``rank``
    leading singular triplets of each matrix, and other tensors as they are; ``patch``, one file of
    flat indices and values. exclude: tensors to leave as in the base. sync: wait until it is on the
    disk. Returns the error of an adapter, as a task file has it, and None where nothing is lost.
    """
    if to not in KINDS:
        raise RecipeError(f"task export: there is no {to!r}. Give --to {', '.join(KINDS)}.")
    if to == "dense":
        if exclude:
            raise RecipeError("task export: --exclude cannot be combined with --to dense.")
        unpacking.unpack(base, [task], output, force=force, sync=sync)  # pyright: ignore[reportArgumentType]
        return None
    if rank < 1:
        raise RecipeError(f"task export: rank {rank} is not possible. Give 1 or more.")
    made = packing.recipe(
        opening.label(base, "base"),
        opening.named([task], None),
        "none",
        {},
        exclude=opening.globs(exclude),
    )
    with durable.syncing(sync):
        return of(made, Path(output), to, rank, force, [base, task])


def of(
    recipe: Recipe, output: Path, to: str, rank: int, force: bool, sources: Any = None
) -> dict[str, float] | None:
    """Export the one model of a recipe to an adapter or a patch."""
    with opening.opened(recipe, sources) as plan:
        files.check_not_input(plan, output)
        try:
            if to == "patch":
                _patch(plan, output, force)
                return None
            return _adapter(plan, output, rank, force)
        except OSError as error:
            raise OutputError(
                f"{output}: {error.strerror or error}. Give another output, or check the disk."
            ) from None


#: Why tensors are copied that a model may change all the same.
_CHANGED = ("", "not a weight", "buffer", "statistic")


def _changed(plan: Plan) -> list[tuple[TensorPlan, Tensor]]:
    """Return the tensors that the model changed, and those of it."""
    found = []
    for tensor in plan.tensors:
        (model,) = tensor.models
        if model is None or tensor.copied not in _CHANGED:
            continue
        if not plans.equal(tensor.base, model):
            found.append((tensor, model))
    if not found:
        raise MismatchError(f"{plan.models[0].label}: changes nothing of {plan.base.label}.")
    return found


def _adapter(plan: Plan, output: Path, rank: int, force: bool) -> dict[str, float]:
    """Write an adapter; return what it loses."""
    adapter_folder.check_output(output, force)
    made, losses = Made(), list[writing.Loss]()
    ties = {} if plan.base.untied else tied.ties(plan.base)
    adapter_folder.check_base(plan)
    adapter_folder.check_apart(plan)
    with one_blas_thread():
        for tensor, model in _changed(plan):
            if tensor.name in ties or tensor.name in ties.values():
                _add_tied(plan, made, losses, tensor, ties)
                continue
            what = tensor.name.rpartition(".")[2]
            if what == "weight" and len(tensor.base.shape) > 1 and not tensor.copied:
                losses.append(_factor(plan, made, tensor, model, rank))
            elif tensor.copied:
                raise MismatchError(
                    f"{plan.models[0].label}: tensor {tensor.name!r} cannot be in an adapter."
                    f" {_ADVICE}"
                )
            else:
                made.keep(tensor, plan.models[0].label, _ADVICE)
    if not made.ranks:
        raise MismatchError(f"{plan.models[0].label}: changes no matrix. {_ADVICE}")
    made.rest(plan, partial(_add_whole, made, losses))
    error = writing.error(losses)
    said = {"format": "pt", "breadcrumbs.error": json.dumps(error)}
    made.write(plan, output, said, force)
    return error


def _add_tied(
    plan: Plan,
    made: Made,
    losses: list[writing.Loss],
    tensor: TensorPlan,
    ties: Mapping[str, str],
) -> None:
    """Add a tensor whole, under both of its names."""
    for name in adapter_folder.both_names(plan, tensor.name, ties, _ADVICE):
        if peft.PREFIX + name not in made.tensors:
            made.tied.append(name.rpartition(".")[0])
            _add_whole(made, losses, tensor, peft.PREFIX + name)


def _factor(plan: Plan, made: Made, tensor: TensorPlan, model: Tensor, rank: int) -> writing.Loss:
    """Add the leading triplets of what changed of a tensor; return what is lost of it."""
    base, weights = tensor.base.read(), model.read()
    tau = (weights.astype(np.float64) - base.astype(np.float64)).reshape(len(base), -1)
    if not np.isfinite(tau).all():
        raise MismatchError(f"{plan.models[0].label}: tensor {tensor.name!r} is not finite.")
    found = factors.cut(tau, rank)
    back = products.added(base.reshape(-1), found, 0, np.dtype(np.float64))
    left, right = _padded(found.left, rank, 1), _padded(found.right, rank, 0)
    made.add(tensor.base, left, right, adapter_folder.is_turned(plan, tensor.base))
    return writing.loss(weights.reshape(-1), back, base.reshape(-1))


def _padded(factor: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """Return a factor with zeros up to the rank, so that one rank goes for all."""
    pad = [(0, 0), (0, 0)]
    pad[axis] = (0, rank - factor.shape[axis])
    return np.pad(factor, pad)


def _add_whole(made: Made, losses: list[writing.Loss], tensor: TensorPlan, key: str) -> None:
    model = tensor.models[0] or tensor.base
    values, base = model.read(), tensor.base.read()
    made.tensors[key] = values
    if tensor.base.is_weight:
        flat = values.reshape(-1)
        losses.append(writing.loss(flat, flat, base.reshape(-1)))


def _patch(plan: Plan, output: Path, force: bool) -> None:
    """Write flat indices and values of what changed, two tensors for each."""
    writing.check_output(output, force)
    entries, found = [], []
    for tensor, model in _changed(plan):
        number = sum(at.size for at, _ in _coordinates(tensor, model))
        if number:
            kind = "I32" if tensor.base.size < 2**31 else "I64"
            entries.append(Entry(f"{tensor.name}.indices", kind, (number,)))
            entries.append(Entry(f"{tensor.name}.values", model.dtype, (number,)))
            found.append((tensor, model, kind))
    taken = [entry.name for entry in entries if entry.name in plan.base.tensors]
    if taken:
        raise MismatchError(f"{plan.base.label}: has {listing(taken)}, which a patch would hold.")
    base = packing.reference(plan.base)
    said = {"name": base.name, "revision": base.revision, "hash": base.hash}
    metadata = {"format": "pt", "breadcrumbs.patch": json.dumps({"version": 1, "base": said})}

    def data() -> Iterator[Any]:
        yield header(entries, metadata)
        for tensor, model, kind in found:
            for at, _ in _coordinates(tensor, model):
                yield at.astype(DTYPES[kind]).tobytes()
            for _, values in _coordinates(tensor, model):
                yield values.tobytes()

    whole.write(output, data(), force=force)


def _coordinates(tensor: TensorPlan, model: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield flat indices and values of the entries whose value changed, some at a time."""
    for start in range(0, tensor.base.size, BLOCK):
        n = min(BLOCK, tensor.base.size - start)
        base, values = np.empty(n, DTYPES[tensor.base.dtype]), np.empty(n, DTYPES[model.dtype])
        tensor.base.read_into(start, base)
        model.read_into(start, values)
        at = np.flatnonzero(writing.differ(base, values))
        yield start + at, values[at]
