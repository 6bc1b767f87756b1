"""Adapters merged in their own space: models in coordinates are models of small tensors.

The plan of such a merge has two. In `Coordinates.plan` each matrix that all models change by thin
products is a small matrix of coordinates (`plan.coordinates`), on a base of zeros, and all else is
as it was: so every method merges it, and knows of no space. The other is the plan of the output, in
which what that gave is copied: lifted back, once it is known (`merging.spaces`).
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np

from breadcrumbs.checkpoint import tied
from breadcrumbs.checkpoint.memory import ArrayBytes
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, RecipeError, listing
from breadcrumbs.methods import algebra
from breadcrumbs.plan import coordinates, lowering, making
from breadcrumbs.plan.coordinates import Basis
from breadcrumbs.plan.plan import Coordinates, Plan, TensorPlan
from breadcrumbs.plan.recipe import SAME, SPACES, Recipe
from breadcrumbs.plan.spaces import low_rank

#: Why tensors of the output are copied: from what was merged before.
LIFTED, WHOLE = "merged in their own space", "merged in full"
#: Of what no model changes.
_SAME = "unchanged"
_FULL = "Give space: full."


@dataclass(frozen=True)
class Pending:
    """The bytes of a tensor that is known when the coordinates are merged (`merging.spaces`).

    target: what the step is added to.
    """

    target: Tensor

    def read_into(self, start: int, out: memoryview) -> None:
        """Raise RecipeError: whoever reads has left out a step."""
        raise RecipeError(
            f"tensor {self.target.name!r}: is merged in a space of its own, which merges alone can"
            f" do. {_FULL}"
        )


def make(
    recipe: Recipe,
    base: Checkpoint,
    models: Sequence[Checkpoint],
    onto: Checkpoint | None = None,
    statistics: Sequence[Checkpoint] = (),
) -> Plan:
    """Return the plan of a recipe as `plan.make` does, whatever its space.

    RecipeError for a method that needs more than task vectors; MismatchError where no matrix is
    changed by thin products alone, and for DoRA.
    """
    plan = making.make(recipe, base, models, onto, statistics)
    if recipe.space == SPACES[0]:
        return plan
    _check(plan)
    from threadpoolctl import threadpool_limits

    one = threadpool_limits(1, user_api="blas")  # what it rounds to may depend on their number
    with one, algebra.on(recipe.device):
        found = {n: coordinates.of(recipe.space, mine) for n, mine in _changes(plan).items()}
    small = _in_coordinates(base, found, None)
    others = [_in_coordinates(model, found, t) for t, model in enumerate(models)]
    under = None if onto is None else _in_coordinates(onto, found, None)
    inner = making.make(recipe, small, others, under)
    outer = {tensor.name: tensor for tensor in plan.tensors}
    tensors = [_inner(tensor, outer[tensor.name], found, plan) for tensor in inner.tensors]
    bases = {name: it for name, (it, _) in found.items()}
    within = Coordinates(replace(inner, tensors=tuple(tensors)), bases)
    kinds = {t.name: LIFTED if t.name in found else WHOLE for t in within.plan.merged}
    return replace(
        plan,
        tensors=tuple(_outer(tensor, kinds, plan) for tensor in plan.tensors),
        coordinates=within,
        notes=(*plan.notes, _said(recipe, within, plan)),
    )


def _inner(tensor: TensorPlan, outer: TensorPlan, found: Container[str], plan: Plan) -> TensorPlan:
    """Return a tensor of what is merged first: coordinates, and what is merged in full.

    outer: what happens to it where there is no space.
    """
    if tensor.name in found:
        return replace(tensor, dtype="F64")
    if outer.copied or tensor.copied:
        return replace(tensor, copied=outer.copied or tensor.copied)
    return tensor if changed(plan, tensor) else replace(tensor, copied=_SAME)


def _outer(tensor: TensorPlan, kinds: dict[str, str], plan: Plan) -> TensorPlan:
    """Return a tensor of the output, copied if it is merged before, or changed by no model."""
    if tensor.copied or tensor.name not in kinds:
        return tensor if tensor.copied else replace(tensor, copied=_SAME)
    onto = replace(tensor.target, source=Pending(tensor.target))
    return replace(tensor, copied=kinds[tensor.name], onto=onto)


def _said(recipe: Recipe, within: Coordinates, plan: Plan) -> str:
    """Return what a space is of, in a sentence."""
    numbers = sum(t.base.size for t in within.plan.merged if t.name in within.bases)
    weights = sum(t.base.size for t in plan.tensors if t.name in within.bases)
    others = [t for t in within.plan.merged if t.name not in within.bases]
    rest = f"; merged in full: {listing([t.name for t in others], 3)}" if others else ""
    return (
        f"space {recipe.space}: {len(within.bases)} matrices are merged as {numbers:,} coordinates"
        f" of {weights:,} weights{rest}"
    )


def changed(plan: Plan, tensor: TensorPlan) -> bool:
    """Return whether some model may change a tensor, as far as is known without reading."""
    return any(
        model is not None and tensor.name not in left
        for model, left in zip(tensor.models, plan.untouched, strict=True)
    )


def _check(plan: Plan) -> None:
    """Raise RecipeError for what a space cannot have."""
    space, method = plan.recipe.space, plan.method
    if plan.recipe.dtype == SAME:
        raise RecipeError(f"space {space}: weights are not quantised again. Give another dtype.")
    if method.statistics is not None:
        raise RecipeError(
            f"space {space}: method {method.name} takes {method.statistics.what}, which are of the"
            f" weights as they are. {_FULL}"
        )
    for tensor in plan.merged:
        why = lowering.beyond(plan.lowered, tensor.values, [own.weight for own in tensor.own])
        if why:
            raise RecipeError(
                f"space {space}: method {method.name} {why}, and in a space of the adapters there"
                f" are task vectors alone. {_FULL}"
            )


def _changes(plan: Plan) -> dict[str, list[Factors | None]]:
    """Return of each matrix that some models change, and all by thin products, these products."""
    found: dict[str, list[Factors | None]] = {}
    given, dora = [False] * len(plan.models), []
    tables = {} if plan.base.untied else tied.ties(plan.base)
    together = {*tables, *tables.values()}  # an embedding and its head are one matrix
    for tensor in plan.merged:
        mine = [
            None if model is None or low_rank.same(model, tensor.base) else model
            for model in tensor.models
        ]
        products = [model and low_rank.change(model, tensor.base) for model in mine]
        for t, (model, product) in enumerate(zip(mine, products, strict=True)):
            given[t] |= product is not None
            if model is not None and low_rank.is_dora(model):
                dora.append((plan.models[t].label, tensor.name))
        alike = all((model is None) == (p is None) for model, p in zip(mine, products, strict=True))
        if any(products) and alike and tensor.name not in together:
            absent = [own.weight == 0 for own in tensor.own]
            found[tensor.name] = [
                None if out else p for p, out in zip(products, absent, strict=True)
            ]
    if dora:
        label, name = dora[0]
        raise MismatchError(
            f"{label}: is DoRA, which brings rows of {name!r} to lengths of their own, so that the"
            f" change is no thin product and space {plan.recipe.space} has no place for it. {_FULL}"
        )
    for model, any_ in zip(plan.models, given, strict=True):
        if not any_:
            raise MismatchError(
                f"{model.label}: changes no matrix by a product of two thin ones that is known, as"
                f" a LoRA adapter of {plan.base.label} does, so it is not in the space"
                f" {plan.recipe.space} of adapters. Give an adapter by itself, or space: full."
            )
    result = {name: mine for name, mine in found.items() if any(mine)}
    if not result:
        raise MismatchError(
            f"{plan.base.label}: no matrix is changed by thin products alone in all models, so none"
            f" can be merged in space {plan.recipe.space}. {_FULL}"
        )
    return result


def _in_coordinates(
    model: Checkpoint, found: dict[str, tuple[Basis, list[np.ndarray]]], number: int | None
) -> Checkpoint:
    """Return a model with coordinates in place of matrices. number: of it; None is the base."""
    tensors = dict(model.tensors)
    for name, (_, steps) in found.items():
        if name in tensors:
            step = np.zeros_like(steps[0]) if number is None else steps[number]
            tensors[name] = Tensor(name, "F64", step.shape, ArrayBytes(np.ascontiguousarray(step)))
    return replace(model, tensors=tensors, stored=None)


__all__ = ["LIFTED", "WHOLE", "Pending", "changed", "make"]
