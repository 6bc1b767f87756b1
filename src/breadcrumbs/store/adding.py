"""Making the file of a task that is added, and checking that it fits the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import MismatchError
from breadcrumbs.merging import opening
from breadcrumbs.methods import registry
from breadcrumbs.plan import Plan
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Model
from breadcrumbs.store import settling
from breadcrumbs.store.held import Held
from breadcrumbs.taskfile.about import About
from breadcrumbs.taskfile.reader import TaskFile
from breadcrumbs.tasks import importing, packing


def pack(
    store: Held,
    source: Checkpoint,
    name: str,
    path: Path,
    *,
    recipe: dict[str, Any],
    note: Callable[[str], None],
    judge: Callable[[Plan], Plan],
    **options: Any,
) -> About:
    """Write the task file of a fine-tuning or an adapter to ``path``; return what it says.

    judge: given the plan, returns it or raises its warnings. options: as for `packing.of`.
    """
    transform, given = store.packed_as()
    models = (Model(source.label, name=name),)
    made = packing.recipe(store.settings.base, models, transform, given, **recipe)
    plan = judge(opening.planned(made, [store.base, source], on_base=True))
    for line in plan.notes:
        note(line)
    if transform == "none" and source.is_bare_adapter:
        found = importing.whole(store.base, source, recipe)
        if found is not None:  # two thin matrices, where all entries of their product change
            who = {key: options.get(key, "") for key in ("author", "license")}
            return importing.write(*found, path, name, **who)
    return packing.of(plan, path, **options)


def check_task(store: Held, task: TaskFile, label: str) -> None:
    """Raise MismatchError for a task on another base."""
    if task.base.hash != store.settings.base_hash:
        raise MismatchError(
            f"{label}: is a task on {shown(task.base.name)}, hash {task.base.hash[:16]}...;"
            f" this store is for {shown(store.settings.base_name)}, hash"
            f" {store.settings.base_hash[:16]}.... Pack it with that base."
        )


def check_fits(store: Held, name: str, path: Path) -> None:
    """Raise an error unless a task can be merged with those that are there."""
    made = store.recipe(store.entries()[:1])
    made = dataclasses.replace(made, models=(*made.models, Model(str(path), name=name)))
    method = registry.get(made.method)
    if settling.tells_models_apart(method, len(made.models)):
        given = settling.packed_as(method, made.parameters)
        made = packing.recipe(made.base, made.models, *given)
    with ExitStack() as stack:
        paths = [model.path for model in made.models]
        opened = [stack.enter_context(checkpoint.open(where)) for where in paths]
        opening.planned(made, [store.base, *opened])


def judge(plan: Plan, strict: bool, warn: Callable[[Sequence[str]], None]) -> Plan:
    """Return the plan, and call ``warn`` with its warnings."""
    plan = judged(plan, strict, packing=True)
    warn(plan.warnings)
    return plan
