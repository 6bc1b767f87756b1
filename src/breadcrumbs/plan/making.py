"""Recipe and checkpoint headers -> Plan: what happens to each tensor, before a weight is read.

Everything that does not fit is an error here.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from breadcrumbs import plan_statistics
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, RecipeError, listing, suggestion
from breadcrumbs.method import Method
from breadcrumbs.plan import target as targeted
from breadcrumbs.plan.partners import copied, equal, partners
from breadcrumbs.plan.plan import Plan, TensorPlan
from breadcrumbs.recipe import OUTPUT_DTYPES, Recipe
from breadcrumbs.settings import Settings, check_granularity, placed
from breadcrumbs.tasks import cuts


def make(
    recipe: Recipe,
    base: Checkpoint,
    models: Sequence[Checkpoint],
    onto: Checkpoint | None = None,
    statistics: Sequence[Checkpoint] = (),
) -> Plan:
    """Return the plan of ``recipe`` for its open checkpoints; MismatchError or RecipeError if none.

    models: one checkpoint for each of ``recipe.models``, in their order. onto: that of the recipe.
    statistics: those of the recipe's models, if they have any.
    """
    recipe, method = cuts.settled(recipe, models)
    if not base.tensors:
        raise MismatchError(f"{base.label}: holds no tensors. Give a checkpoint with weights.")
    _check_number(method, models)
    plan_statistics.check_number(method, len(models), len(statistics))
    warnings = _same_models(recipe, base, models)
    _check_globs(recipe, base)
    settings = Settings(method, recipe)
    values = {name: settings.of(name) for name in base.tensors}
    check_granularity(method, values)
    values = placed(method, recipe, base, values, warnings)
    matched = [partners(recipe, base, model, warnings) for model in models]
    targets = _targets(recipe, base, onto, warnings) if onto else {}
    tensors = []
    for name, tensor in base.tensors.items():
        why = copied(recipe, tensor)
        found = tuple(mine.get(name) for mine in matched)
        if why in ("", "not a weight"):
            _check_fit(base, models, tensor, found)
        target = targets.get(name)
        dtype = (target or tensor).dtype
        if recipe.dtype and tensor.is_weight:
            dtype = OUTPUT_DTYPES[recipe.dtype]
        tensors.append(TensorPlan(tensor, dtype, found, *values[name], why, target))
    if onto:
        tensors = targeted.whole(recipe, settings, onto, tensors)
    plan = Plan(recipe, method, base, tuple(models), tuple(tensors), tuple(warnings), onto=onto)
    if recipe.only_changed:
        plan = _only_changed(plan)
    return plan_statistics.add(plan, statistics)


def _targets(
    recipe: Recipe, base: Checkpoint, onto: Checkpoint, warnings: list[str]
) -> dict[str, Tensor]:
    """Return the tensors that steps are added to; MismatchError if they do not fit the base's."""
    # What it alone has stays.
    found = partners(replace(recipe, extra="ignore"), base, onto, [])
    lost = [name for name in base.tensors if name not in found]
    if lost:
        raise MismatchError(
            f"{onto.label}: lacks {len(lost)} tensors of {base.label}: {listing(lost)}, so nothing"
            " can be added to them."
        )
    for name, tensor in base.tensors.items():
        _check_fit(base, [onto], tensor, [found[name]])
    return found


def _check_globs(recipe: Recipe, base: Checkpoint) -> None:
    globs = [("exclude", glob) for glob in recipe.exclude]
    globs += [("only", glob) for glob in recipe.only]
    globs += [("overrides", override.tensors) for override in recipe.overrides]
    for key, glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in base.tensors):
            raise RecipeError(
                f"recipe: {key}: {glob!r} matches no tensor of {base.label}."
                f"{suggestion(glob, base.tensors)} `breadcrumbs inspect` lists the names."
            )


def _check_number(method: Method, models: Sequence[Checkpoint]) -> None:
    least, most = method.aggregate.models
    if least <= len(models) <= (most or len(models)):
        return
    given = "given is 1 model" if len(models) == 1 else f"given are {len(models)} models"
    raise RecipeError(f"method {method.name}: needs {method.needs}; {given}.")


def _identity(checkpoint: Checkpoint) -> tuple:
    """Return what two checkpoints have in common that are one."""
    return checkpoint.files, checkpoint.layers


def _same_models(recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint]) -> list[str]:
    """Return warnings of models that are one; RecipeError if one is the base, but adds to it."""
    whole = recipe.parameters.get("of") == "models"  # merged whole, so that the base may be one
    scaled = recipe.parameters.get("normalize") == "none"
    warnings = []
    counts = Counter(_identity(model) for model in models if model.files)
    for model in models:
        if model.files and _identity(model) == _identity(base) and not whole:
            raise RecipeError(
                f"{model.label}: is the base itself, so there is nothing to add."
                " Give the base once, first, and then the fine-tuned models."
            )
        times = counts.pop(_identity(model), 1)
        if times > 1:
            often = "twice" if times == 2 else f"{times} times"
            warnings.append(f"{model.label} is given {often}, so it counts {often}")
    if not models and not base.layers and not scaled:
        warnings.append("no fine-tuned model is given, so the result is the base")
    return warnings


def _check_fit(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    tensor: Tensor,
    found: Sequence[Tensor | None],
) -> None:
    for model, other in zip(models, found, strict=True):
        if other is None:
            continue
        if other.shape != tensor.shape:
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} has shape {other.shape}, {base.label} has"
                f" {tensor.shape}. Merged tensors share the base's shape. Give"
                f" `exclude: {tensor.name}` to keep the base's."
            )
        if other.is_weight != tensor.is_weight:
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} holds {other.dtype}, {base.label} holds"
                f" {tensor.dtype}. Only floating-point weights are merged. Give"
                f" `exclude: {tensor.name}` to keep the base's."
            )


def _only_changed(plan: Plan) -> Plan:
    """Return the plan with tensors copied that are the base's in every model (bytes compared)."""
    tensors = []
    for tensor in plan.tensors:
        if not tensor.copied and all(m is None or equal(tensor.base, m) for m in tensor.models):
            tensor = replace(tensor, copied="unchanged")
        tensors.append(tensor)
    return replace(plan, tensors=tuple(tensors))
