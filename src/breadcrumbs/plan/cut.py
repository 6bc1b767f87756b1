"""Merging what task files keep: the transform that cut them is not applied again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from breadcrumbs.checkpoint.tensors import Checkpoint, Cut
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import parameters, registry
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.published.localize_and_stitch import STITCH
from breadcrumbs.methods.table import METHODS, TRANSFORMS
from breadcrumbs.methods.transforms import Draw, Transform
from breadcrumbs.plan import lowering
from breadcrumbs.plan.recipe import Recipe, name_of

_WHOLE = "Pack with --transform none for that: such files are as good as checkpoints."


def settled(recipe: Recipe, models: Sequence[Checkpoint]) -> tuple[Recipe, Method]:
    """Return the recipe and the method with which these models are merged.

    Where task files are cut already by the method's transform, its parameters are theirs, and the
    method keeps all that they hold. RecipeError where the files do not go with each other, with
    the method or with what the recipe asks for.
    """
    method = registry.get(recipe.method)
    recipe = _named(recipe, models)
    cut = [model for model in models if model.cut and model.cut.transform != "none"]
    mine = lowering.of(method)
    if not cut or mine.keeps_all:
        return recipe, method
    first = cut[0].cut
    assert first is not None
    if first.transform not in TRANSFORMS:
        raise RecipeError(
            f"{cut[0].label}: was cut by {first.transform!r}, which is not supported."
        )
    if not same(method.transform, TRANSFORMS[first.transform]):
        ways = [m.name for m in METHODS.values() if same(m.transform, TRANSFORMS[first.transform])]
        raise RecipeError(
            f"{cut[0].label}: was cut by {first.transform}, which method {method.name} does not."
            f" Merge with {', '.join(ways)} or task_arithmetic, or pack with --transform none."
        )
    for model in models:
        if model.cut is None or model.cut.transform == "none":
            raise RecipeError(
                f"{model.label}: is whole, but {cut[0].label} was cut by {first.transform} when it"
                " was packed. Pack all of them the same way."
            )
        if (model.cut.transform, model.cut.parameters) != (first.transform, first.parameters):
            raise RecipeError(
                f"{model.label}: was cut by {_words(model.cut)}, {cut[0].label} by"
                f" {_words(first)}. Pack all of them the same way."
            )
    changed = _agreed(recipe, method, cut[0])
    _check_aggregate(changed, method, cut[0])
    transform = method.transform
    scale = mine.draw.scale if mine.draw else lambda values: 1.0
    all_of_it = Draw(lambda values: 1.0, transform.parameters, transform.check, scale)
    return changed, replace(method, transform=all_of_it)


def _named(recipe: Recipe, models: Sequence[Checkpoint]) -> Recipe:
    """Return the recipe with the tasks' own names for models that were given none."""
    own = {}
    for model, found in zip(recipe.models, models, strict=True):
        given = model.name != name_of(model.path)
        own[model.name] = model.name if given or not found.cut else found.cut.name
    if all(name == mine for name, mine in own.items()) or len(set(own.values())) < len(own):
        return recipe
    named = tuple(replace(model, name=own[model.name]) for model in recipe.models)
    overrides = tuple(replace(o, model=own.get(o.model, o.model)) for o in recipe.overrides)
    return replace(recipe, models=named, overrides=overrides)


def same(a: Transform, b: Transform) -> bool:
    """Return whether two transforms are one, but for their defaults."""
    one, other = lowering.lowered(a), lowering.lowered(b)
    if one.band and other.band:
        return one.band.ranks is other.band.ranks
    if one.draw and other.draw:
        return (one.draw.keep, one.draw.scale) == (other.draw.keep, other.draw.scale)
    return False


def _words(task: Cut) -> str:
    values = ", ".join(f"{key} {value}" for key, value in task.parameters.items())
    return f"{task.transform} ({values})"


def _agreed(recipe: Recipe, method: Method, model: Checkpoint) -> Recipe:
    """Return the recipe with the parameters of the files; RecipeError if it asks for others."""
    declared, task = method.transform.parameters, model.cut
    assert task is not None
    for given in (
        *(o.parameters for o in recipe.overrides),
        *(m.parameters for m in recipe.models),
    ):
        for key in given:
            if key in declared:
                raise RecipeError(
                    f"recipe: {key} of some tensors or of one model: {model.label} was cut when it"
                    f" was packed, everywhere alike. {_WHOLE}"
                )
    given = {key: value for key, value in recipe.parameters.items() if key in declared}
    band = lowering.of(method).band
    replaces = band.replaces if band else {}
    gone = {name for key in given for name in replaces.get(key, ())}
    asked = {k: v for k, v in task.parameters.items() if k not in gone and k in declared} | given
    wanted, held = (_complete(method, values) for values in (asked, task.parameters))
    for key, value in wanted.items():
        if value != held.get(key):
            raise RecipeError(
                f"{model.label}: was cut by {_words(task)}; the merge asks for {key}"
                f" {parameters.written(value)}. Leave that out, or pack again with it."
            )
    others = {key: value for key, value in recipe.parameters.items() if key not in declared}
    return replace(recipe, parameters={**task.parameters, **others})


def _complete(method: Method, given: Any) -> dict[str, Any]:
    values = method.complete(given)
    return {key: values[key] for key in method.transform.parameters if key in values}


def needs_whole(method: Method, granularity: str | None) -> bool:
    """Return whether a method must know more of a fine-tuning than what its transform keeps."""
    votes = lowering.of(method).votes
    return method.aggregate is STITCH or (votes and granularity == "model")


def _check_aggregate(recipe: Recipe, method: Method, model: Checkpoint) -> None:
    if needs_whole(method, recipe.parameters.get("granularity")):
        raise RecipeError(
            f"{model.label}: was cut when it was packed, and method {method.name} looks at what was"
            f" cut, too. {_WHOLE}"
        )
