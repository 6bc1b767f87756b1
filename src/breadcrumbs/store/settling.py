"""What a store is made with, and the recipe that its tasks are merged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.adapters import inserted
from breadcrumbs.checkpoint.tensors import shown
from breadcrumbs.errors import MismatchError, RecipeError, StoreError
from breadcrumbs.methods import parameters as declared
from breadcrumbs.methods import registry
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.table import TRANSFORMS
from breadcrumbs.plan import lowering
from breadcrumbs.plan.cut import needs_whole, same
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.store import files
from breadcrumbs.store.history import Entry
from breadcrumbs.store.ledger import Settings
from breadcrumbs.taskfile.reader import TaskFile
from breadcrumbs.tasks import packing

#: Characters of a name.
_LONGEST = 200


def recipe(
    settings: Settings,
    entries: list[Entry],
    folder: Path,
    method: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    dtype: str | None = None,
) -> Recipe:
    """Return how some tasks, whose files are in a store's ``folder``, are merged."""
    mine = settings.parameters if method in (None, settings.method) else {}
    models = tuple(
        Model(str(files.place(folder, entry.task)), entry.weight, entry.name) for entry in entries
    )
    chosen = method or settings.method
    return Recipe(settings.base, models, chosen, {**mine, **(parameters or {})}, dtype=dtype)


def located(base: str, settings: Settings) -> str:
    """Return where the base is, as a store notes it; MismatchError if it is another one."""
    with checkpoint.open(base) as opened:
        found = packing.reference(opened)
        if found.hash != settings.base_hash:
            raise MismatchError(
                f"{base}: its hash is {found.hash[:16]}..., not {settings.base_hash[:16]}..., that"
                f" of {settings.base_name!r}, the base of this store. Give that one with --base."
            )
        return opened.repo or (str(Path(base).absolute()) if opened.files else base)


def settings(base: str, recipe: Recipe) -> Settings:
    """Return the settings of a new store; RecipeError, CheckpointError for what cannot be."""
    method = registry.get(recipe.method)
    transform, given = packed_as(method, recipe.parameters)
    with checkpoint.open(base) as opened:
        inserted.refuse_base(opened)
        packing.recipe(base, (Model("a fine-tuning"),), transform, given)
        about = packing.reference(opened)
        where = opened.repo or (str(Path(base).absolute()) if opened.files else base)
    written = {key: declared.written(value) for key, value in recipe.parameters.items()}
    return Settings(where, about.name, about.revision, about.hash, method.name, written)


def packed_as(method: Method, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the transform, and its parameters, by which fine-tunings are packed for a method."""
    mine = method.transform
    stated = method.stated(given)
    how = lowering.of(method)
    if how.band:
        stated["granularity"] = how.band.granularity(stated)
    if not how.masks or needs_whole(method, stated.get("granularity")):
        return "none", {}
    for name, transform in TRANSFORMS.items():
        if same(mine, transform):
            return name, {key: stated[key] for key in stated if key in transform.parameters}
    return "none", {}


def tells_models_apart(method: Method, number: int) -> bool:
    """Return whether a method cannot be planned yet: it needs more models than so many, or has
    parameters that say something of each, or name one."""
    kinds = method.parameters.values()
    return number < method.aggregate.models[0] or any(hasattr(kind, "resolve") for kind in kinds)


def said_of(task: TaskFile) -> dict[str, Any]:
    """Return what a task file says of itself, in short, as the ledger has it."""
    about = task.about
    keys = ("name", "author", "license", "transform", "encoding", "density", "made_by")
    said = {key: getattr(about, key) for key in keys}
    return {**said, "parameters": dict(about.parameters), "hash": task.hash}


def check(name: str, weight: float) -> None:
    """Raise an error for a name or weight that cannot be."""
    if not name or len(name) > _LONGEST or not name.isprintable() or name != name.strip():
        raise StoreError(
            f"store: {shown(name)} cannot be the name of a task. Give up to {_LONGEST} printable"
            " characters."
        )
    if not math.isfinite(weight):
        raise RecipeError(f"{name}: weight {weight} is not a finite number.")
