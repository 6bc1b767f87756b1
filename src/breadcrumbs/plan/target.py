"""The model that steps are added to instead of the base: written whole, under its own names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.plan.dtypes import output_dtype
from breadcrumbs.plan.plan import TensorPlan
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.plan.settings import Settings

#: Why a tensor is copied that the base lacks, such as those of a tower for images.
ALONE = "of the target alone"


def whole(
    recipe: Recipe, settings: Settings, onto: Checkpoint, tensors: Sequence[TensorPlan]
) -> list[TensorPlan]:
    """Return the plans of all tensors of ``onto``: those of the base, and the rest, copied.

    tensors: the plans of the base's tensors. A tied one that the target does not store is left out.
    """
    found = [
        replace(tensor, written=onto.called.get(tensor.name, ""))
        for tensor in _first(tensors, onto)
        if tensor.name in onto.tensors
    ]
    have = {tensor.name for tensor in tensors}
    for name, tensor in onto.tensors.items():
        if name in have:
            continue
        none = (None,) * len(recipe.models)
        alone = TensorPlan(
            tensor, output_dtype(recipe, tensor), none, *settings.of(name), copied=ALONE
        )
        found.append(replace(alone, written=onto.called.get(name, "")))
    return found


def _first(tensors: Sequence[TensorPlan], onto: Checkpoint) -> list[TensorPlan]:
    """Return plans in which a tied copy stands for its tensor where the target lacks that one."""
    plans = {tensor.name: tensor for tensor in tensors}
    instead: dict[str, str] = {}
    found = []
    for tensor in tensors:
        if tensor.tied and tensor.name in onto.tensors and tensor.tied not in onto.tensors:
            first = instead.setdefault(tensor.tied, tensor.name)
            whole = plans[tensor.tied]
            if first == tensor.name:
                tensor = replace(whole, base=tensor.base, onto=tensor.onto)
            else:
                tensor = replace(tensor, tied=first)
        found.append(tensor)
    return found
