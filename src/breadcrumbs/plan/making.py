"""Recipe and checkpoint headers -> Plan: what happens to each tensor, before a weight is read.

Everything that does not fit is an error here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from breadcrumbs.checkpoint import composite
from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.checkpoint.tied import equal
from breadcrumbs.errors import MismatchError, RecipeError, counted, listing, suggestion
from breadcrumbs.methods.method import Method
from breadcrumbs.plan import cut, lowering, others, ties
from breadcrumbs.plan import statistics as plan_statistics
from breadcrumbs.plan import target as targeted
from breadcrumbs.plan.dtypes import check_same, output_dtype
from breadcrumbs.plan.partners import Remarks, check_globs, copied, partners
from breadcrumbs.plan.plan import Plan, TensorPlan
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.plan.settings import Found, Settings, by_component, check_granularity, placed
from breadcrumbs.plan.ties import matches


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
    recipe, method = cut.settled(recipe, models)
    if not base.tensors:
        raise MismatchError(f"{base.label}: holds no tensors. Give a checkpoint with weights.")
    _check_number(method, models)
    plan_statistics.check_number(method, len(models), len(statistics))
    remarks = Remarks(_same_models(recipe, base, models))
    base = ties.untied(recipe, base, models)
    base, first = ties.found(recipe, base, models, remarks.warnings)
    _check_globs(recipe, base)
    check_globs(recipe, models, base)
    settings = Settings(method, recipe)
    values = {name: settings.of(name) for name in base.tensors}
    _check_fits(recipe, method, values)
    for part in by_component(base, values).values():
        check_granularity(method, part)
    values = placed(
        *(method, recipe, base, values, remarks.warnings),
        lambda name: bool(copied(recipe, base.tensors[name])),
    )
    matched = [partners(recipe, base, model, first, remarks) for model in models]
    targets = _targets(recipe, base, onto, first, remarks) if onto else {}
    differing: list[tuple[Tensor, bool]] = []
    tensors = []
    for name, tensor in base.tensors.items():
        found = tuple(mine.get(name) for mine in matched)
        why = copied(recipe, tensor)
        if name in first:
            why = why or "tied copy"
        elif others.is_mask(tensor):
            why = why or "buffer"
        if why in ("", "statistic", "not a weight", "marker"):
            _check_fit(base, models, tensor, found)
        made = TensorPlan(
            tensor,
            output_dtype(recipe, targets.get(name, tensor)),
            found,
            *values[name],
            copied=why,
            onto=targets.get(name),
            tied=first.get(name, ""),
            careful=_is_careful(recipe, name),
            component=composite.component(base, name),
        )
        tensors.append(_settled(recipe, made, differing, onto))
    others.remark(differing, remarks)
    for marker in others.markers(base, models, remarks):
        own = settings.of(marker.name)
        tensors.append(
            TensorPlan(marker, marker.dtype, (None,) * len(models), *own, copied="marker")
        )
    if onto:
        tensors = targeted.whole(recipe, settings, onto, tensors)
    _remark_statistics(tensors, remarks)
    _remark_tables(method, tensors, remarks)
    check_same(recipe, onto or base, tensors)
    plan = Plan(
        recipe,
        method,
        base,
        tuple(models),
        tuple(tensors),
        tuple(remarks.warnings),
        tuple(remarks.notes),
        onto,
    )
    if recipe.only_changed:
        plan = _only_changed(plan)
    _check_shared(plan)
    return plan_statistics.add(plan, statistics)


def _settled(
    recipe: Recipe,
    made: TensorPlan,
    differing: list[tuple[Tensor, bool]],
    onto: Checkpoint | None,
) -> TensorPlan:
    """Return the plan of a tensor with what it is instead of merged, where it is no weight.

    differing: gets those that are not the same in all models, and whether the models' are taken.
    """
    if made.copied == "statistic":
        return replace(made, mean=_weights(made))
    if made.copied not in ("not a weight", "buffer") or onto is not None:
        return made
    instead, differs = others.chosen(made.base, made.models, made.own)
    if differs:
        others.check_codes(made.base)
        differing.append((made.base, instead is not None))
    return replace(made, onto=instead, dtype=output_dtype(recipe, instead or made.base))


def _is_careful(recipe: Recipe, name: str) -> bool:
    allowed = recipe.allow_nonfinite
    if isinstance(allowed, bool):
        return allowed
    return matches(allowed, name)


def _weights(tensor: TensorPlan) -> tuple[float, ...]:
    """Return what each model counts in a mean of statistics: its weight, 0 if that is negative."""
    both = zip(tensor.models, tensor.own, strict=True)
    return tuple(0.0 if model is None else max(0.0, own.weight) for model, own in both)


def _remark_statistics(tensors: Sequence[TensorPlan], remarks: Remarks) -> None:
    """Say that statistics are the models' mean."""
    number = sum(any(tensor.mean) for tensor in tensors)
    if number:
        remarks.notes.append(
            f"{number} statistics of batches ({listing([t.name for t in tensors if any(t.mean)])})"
            " are the mean of the models'; measuring them again on data of the tasks helps"
        )


def _remark_tables(method: Method, tensors: Sequence[TensorPlan], remarks: Remarks) -> None:
    """Say that embeddings and heads are no matrices to a method of matrices."""
    lowered = lowering.of(method)
    part = lowered.shaped or (
        lowered.finish if lowered.finish and not lowered.finish.rows else None
    )
    looks = "tables" in method.parameters or part
    names = [
        tensor.name
        for tensor in tensors
        if not tensor.copied
        and len(tensor.base.shape) == 2
        and is_table(tensor.name)
        and tensor.values.get("tables", "mean") == "mean"
    ]
    if not looks or not names:
        return
    if "tables" in method.parameters:
        remarks.notes.append(
            f"{listing(names)}: embeddings and heads get the mean with {method.name};"
            " tables=matrix makes them matrices"
        )
    else:
        assert part is not None
        remarks.notes.append(
            f"{listing(names)}: {part.name} leaves embeddings and heads as they are"
        )


def _check_shared(plan: Plan) -> None:
    """Raise MismatchError if no model has a tensor that is merged, so that nothing is added."""
    changed = [t for t in plan.tensors if not t.copied or t.mean or (t.onto and plan.onto is None)]
    shared = any(model is not None for tensor in changed for model in tensor.models)
    if plan.models and changed and not shared:
        raise MismatchError(
            f"{plan.models[0].label}: no tensor of the models is one of {plan.base.label}, so the"
            " result would be the base. Are they fine-tunings of it? `breadcrumbs inspect` lists"
            " the names."
        )


def _targets(
    recipe: Recipe,
    base: Checkpoint,
    onto: Checkpoint,
    first: Mapping[str, str],
    remarks: Remarks,
) -> dict[str, Tensor]:
    """Return the tensors that steps are added to; MismatchError if they do not fit the base's."""
    # What it alone has stays.
    found = partners(replace(recipe, extra="ignore"), base, onto, first, Remarks())
    lost = [name for name in base.tensors if name not in found and name not in first]
    if lost:
        raise MismatchError(
            f"{onto.label}: lacks {counted(len(lost), 'tensor')} of {base.label}: {listing(lost)},"
            " so nothing can be added to them."
        )
    for name, tensor in base.tensors.items():
        if name in found:
            _check_fit(base, [onto], tensor, [found[name]])
    return found


def _check_globs(recipe: Recipe, base: Checkpoint) -> None:
    globs = [("exclude", glob) for glob in recipe.exclude]
    globs += [("only", glob) for glob in recipe.only]
    globs += [("overrides", override.tensors) for override in recipe.overrides]
    if not isinstance(recipe.allow_nonfinite, bool):
        globs += [("allow_nonfinite", glob) for glob in recipe.allow_nonfinite]
    for key, glob in globs:
        if not any(matches([glob], name) for name in base.tensors):
            raise RecipeError(
                f"recipe: {key}: {glob!r} matches no tensor of {base.label}."
                f"{suggestion(glob, base.tensors)} `breadcrumbs inspect` lists the names."
            )


def _check_number(method: Method, models: Sequence[Checkpoint]) -> None:
    least, most = method.aggregate.models
    if least <= len(models) <= (most or len(models)):
        return
    given = "given is 1 model" if len(models) == 1 else f"{len(models)} models were given"
    raise RecipeError(f"method {method.name}: needs {method.needs}; {given}.")


def _check_fits(recipe: Recipe, method: Method, values: Found) -> None:
    """Raise RecipeError where the parameters leave no place for so many models."""
    whole = lowering.of(method).whole
    if whole is None:
        return
    for common, owns in {id(own): (common, own) for common, own in values.values()}.values():
        whole.fits(common, sum(own.weight != 0 for own in owns))


def _same_models(recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint]) -> list[str]:
    """Return warnings of models that are one; RecipeError if one is the base, but adds to it."""
    whole = recipe.parameters.get("of") == "models"  # merged whole, so that the base may be one
    scaled = recipe.parameters.get("normalize") == "none"
    warnings = []
    counts = Counter(model.identity for model in models if model.files)
    for model in models:
        if model.files and model.identity == base.identity and not whole:
            raise RecipeError(
                f"{model.label}: is the base itself, so there is nothing to add."
                " Give the base once, first, and then the fine-tuned models."
            )
        times = counts.pop(model.identity, 1)
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
        if other.shape != tensor.shape and other.shape == (0,):
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} is empty (shape (0,)), {base.label} has"
                f" {tensor.shape}: an incomplete save of training with ZeRO-3. Write the model"
                " again, for example with zero_to_fp32.py, which lies beside such checkpoints."
            )
        if other.shape != tensor.shape and tensor.shape == (0,):
            raise MismatchError(
                f"{base.label}: tensor {tensor.name!r} is empty (shape (0,)), {model.label} has"
                f" {other.shape}: an incomplete save of training with ZeRO-3. Write the model"
                " again, for example with zero_to_fp32.py, which lies beside such checkpoints."
            )
        if other.shape != tensor.shape:
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} has shape {other.shape}, {base.label} has"
                f" {tensor.shape}. Merged tensors share the base's shape. Give"
                f" `exclude: {tensor.name}` to keep the base's."
            )
        if other.is_float != tensor.is_float:
            raise MismatchError(
                f"{model.label}: tensor {tensor.name!r} holds {other.dtype}, {base.label} holds"
                f" {tensor.dtype}. Only floating-point weights are merged. Give"
                f" `exclude: {tensor.name}` to keep the base's."
            )


def _only_changed(plan: Plan) -> Plan:
    """Return the plan with tensors copied that are the base's in every model (bytes compared)."""
    tensors = []
    for tensor in plan.tensors:
        models = [model for model in tensor.models if model is not None]
        if not tensor.copied and all(equal(tensor.base, model) for model in models):
            tensor = replace(tensor, copied="unchanged")
        tensors.append(tensor)
    return replace(plan, tensors=tuple(tensors))
