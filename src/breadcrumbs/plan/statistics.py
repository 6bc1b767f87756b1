"""Statistics of models, such as Fisher information: which go with which tensor, checked early.

A statistics file holds arrays under the names of the weights that they are about. One safetensors
file for each model, or a mapping; its metadata say under `KEY`, as JSON, which ``kind`` it is, and
which weights are ``turned``: their inputs lie along axis 0, as in GPT-2's Conv1D, and not along the
last one, as in Torch's Linear. Without metadata, only shapes tell.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.errors import CheckpointError, MismatchError, RecipeError, listing
from breadcrumbs.methods.aggregates import Given, Statistics

if TYPE_CHECKING:
    from breadcrumbs.methods.method import Method
    from breadcrumbs.plan.plan import Plan, TensorPlan

KEY = "breadcrumbs_statistics"


def check_number(method: Method, models: int, statistics: int) -> None:
    """Raise RecipeError unless there is a file for each model that needs one, and no other."""
    needs = method.statistics
    if needs is None and statistics:
        raise RecipeError(
            f"method {method.name}: takes no statistics; {statistics} files are given."
            " `breadcrumbs methods` lists the methods that do. Leave them out."
        )
    if needs is not None and statistics != models:
        raise RecipeError(
            f"method {method.name}: needs {needs.what} of each model; {statistics} are given for"
            f" {models} models. Make them with {needs.make}, and give each as `statistics`"
            " (--statistics, once for each model, in order)."
        )


def add(plan: Plan, statistics: Sequence[Checkpoint]) -> Plan:
    """Return the plan with the statistics that each tensor takes; MismatchError if they do not fit.

    What a file holds besides, such as of a head that is not merged, is left alone.
    """
    needs = plan.method.statistics
    if needs is None:
        return plan
    for tensor in plan.merged:
        for model, own in zip(plan.recipe.models, tensor.own, strict=True):
            if own.weight < 0:
                raise RecipeError(
                    f"method {plan.method.name}: {model.name} has the weight {own.weight:g} in"
                    f" {tensor.name!r}. Weights multiply statistics; give none below 0."
                )
    files = [(file, _turned(file, needs)) for file in statistics]
    tensors = tuple(t if t.copied else _with(t, needs, files) for t in plan.tensors)
    for file in statistics:
        if plan.merged and not any(tensor.name in file.tensors for tensor in plan.merged):
            raise MismatchError(
                f"{file.label}: has none of the tensors that are merged; it has"
                f" {listing(file.tensors)}. Give {needs.what} of the model, made with {needs.make}."
            )
    return replace(plan, tensors=tensors, statistics=tuple(statistics))


def _turned(file: Checkpoint, needs: Statistics) -> frozenset[str]:
    """Return the names of the turned weights; raise unless the file is of the right kind."""
    text = file.metadata.get(KEY)
    if text is None:
        return frozenset()
    try:
        said: Any = json.loads(text)
        kind, turned = said["kind"], frozenset(said.get("turned", ()))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        raise CheckpointError(f"{file.label}: its metadata {KEY!r} are damaged.") from None
    if kind != needs.kind:
        raise MismatchError(
            f"{file.label}: holds statistics of the kind {kind!r}, {needs.kind!r} is needed."
            f" Make it with {needs.make}."
        )
    return turned


def _with(
    tensor: TensorPlan, needs: Statistics, files: Sequence[tuple[Checkpoint, frozenset[str]]]
) -> TensorPlan:
    found = tuple(file.tensors.get(tensor.name) for file, _ in files)
    anywhere = any(array is not None for array in found)
    shape, turns = tensor.base.shape, {}
    for (file, turned), array, model in zip(files, found, tensor.models, strict=True):
        if array is None and model is not None and (needs.everywhere or anywhere):
            raise MismatchError(
                f"{file.label}: has nothing for tensor {tensor.name!r}"
                f"{'' if needs.everywhere else ', for which other models have statistics'}. Make it"
                f" with {needs.make}, or give `exclude: {tensor.name}` to keep the base's."
            )
        if array is not None:
            _check_array(file, array, tensor.base, needs)
            square = shape[:1] == shape[-1:]
            turns[file.label] = tensor.name in turned if square else array.shape[:1] == shape[:1]
    if len(set(turns.values())) > 1:
        yes, no = (next(label for label, turn in turns.items() if turn == t) for t in (True, False))
        raise MismatchError(
            f"{yes}: says that the inputs of {tensor.name!r} lie along its axis 0; {no} does not."
            f" Make both with {needs.make}."
        )
    turn = any(turns.values())
    return replace(tensor, statistics=found, turned=turn) if anywhere else tensor


def _check_array(file: Checkpoint, array: Tensor, weight: Tensor, needs: Statistics) -> None:
    if not needs.fits(weight.shape, array.shape) or not array.is_float:
        raise MismatchError(
            f"{file.label}: {array.name!r} is {array.dtype} of shape {array.shape}, which is not"
            f" {needs.what} for a weight of shape {weight.shape}. Make it with {needs.make}."
        )


def read_part(plan: Plan, tensor: TensorPlan, model: int, start: int, out: np.ndarray) -> None:
    """Fill float64 ``out`` with a model's statistics from entry ``start`` on; 0 if it has none."""
    array = tensor.statistics[model] if tensor.statistics else None
    if array is None:
        out[:] = 0
        return
    raw = np.empty(out.size, DTYPES[array.dtype])
    array.read_into(start, raw)
    out[:] = raw
    _check_numbers(plan.statistics[model], array, out)


def read_whole(plan: Plan, tensor: TensorPlan, model: int) -> Given | None:
    """Return a model's statistics of a tensor, or None where it has none."""
    array = tensor.statistics[model] if tensor.statistics else None
    if array is None:
        return None
    values = array.read().astype(np.float64)
    diagonal = np.einsum("ii->i", values) if values.ndim == 2 else values
    _check_numbers(plan.statistics[model], array, diagonal)
    if not np.isfinite(values).all():
        raise _impossible(plan.statistics[model], array, "is not finite")
    return Given(values, tensor.turned)


def _check_numbers(file: Checkpoint, array: Tensor, values: np.ndarray) -> None:
    if not (np.isfinite(values) & (values >= 0)).all():
        raise _impossible(file, array, "has entries that are negative or not finite")


def _impossible(file: Checkpoint, array: Tensor, what: str) -> MismatchError:
    return MismatchError(
        f"{file.label}: {array.name!r} {what}, so these are not statistics. Make them again."
    )
