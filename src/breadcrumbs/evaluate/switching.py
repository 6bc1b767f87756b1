"""Tasks in and out of a live module, with what was learned behind its weights.

import breadcrumbs

tasks = breadcrumbs.switch(module, base="merged", heads="heads.safetensors")
with tasks.using("movies") as module:
    logits = foundation.answer(tasks.head(head), tasks.features(features(module, batch)))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.errors import RecipeError, listing
from breadcrumbs.evaluate.corrections import heads as corrections
from breadcrumbs.evaluate.corrections.heads import Heads
from breadcrumbs.evaluate.routing import router as routers
from breadcrumbs.evaluate.routing.router import Router
from breadcrumbs.merging import opening
from breadcrumbs.modules import switching
from breadcrumbs.modules.devices import require_torch
from breadcrumbs.modules.switching import Switch
from breadcrumbs.modules.switching.opening import Tasks

if TYPE_CHECKING:
    import torch


def switch(
    module: torch.nn.Module,
    tasks: Tasks | None = None,
    *,
    base: opening.Source | None = None,
    ignore: str | Sequence[str] = (),
    heads: str | os.PathLike[str] | None = None,
    router: str | os.PathLike[str] | None = None,
) -> Switch:
    """Return a `Switch` of the tasks that files hold, for a module that holds the base's weights.

    tasks: an archive that `breadcrumbs compress` wrote; or task files, one or a list, or a mapping
        of names to them; or nothing, where ``heads`` are given.
    base: what the module was loaded from: a path, hub id or mapping of arrays; unless told, where
        it was when the file was written.
    ignore: globs of tensors that the module has no place for.
    heads: a file of corrections that `breadcrumbs learn` wrote behind ``base``: a merged model. Its
        tasks leave the weights as they are, and change what `Switch.features` and `Switch.head`
        give.
    router: a file that `breadcrumbs learn --what router` wrote behind ``base``, for `Switch.route`;
        the corrections that it leads to need not be given again.

    The module may be of another float dtype than the base, and on any device. MismatchError where
    the module does not hold the base, bit for bit in its dtype, where the base is not the one of
    the file, or where the module has no place for what a task changes. SuiteError where corrections
    or the router are of another model.
    """
    if heads is None and router is None:
        if tasks is None:
            raise RecipeError("switch: no tasks is given. Give an archive, task files or heads.")
        return switching.switch(module, tasks, base=base, ignore=ignore)
    require_torch()
    if base is None:
        raise RecipeError(
            "switch: heads and routers belong to one model. Give base=, the merged model that they"
            " were learned behind."
        )
    chosen = None if router is None else routers.load(router)
    found = None if heads is None else corrections.load(heads)
    if found is None and chosen is not None:
        found = chosen.heads
    behind = _Behind(found, chosen)
    if found is not None:
        found.check_outside()
    whole = checkpoint.open(base, "base")
    try:
        hash_ = model_hash(whole)
    finally:
        if whole is not base:
            whole.close()
    for learned in (found, chosen):
        if learned is not None:
            learned.check_model(hash_, "the base")
    made = Switch(module, tasks, base, opening.globs(ignore), behind)
    lacking = [task for task in chosen.tasks if task not in made.tasks] if chosen else []
    if lacking:
        made.close()
        raise RecipeError(
            f"{routers.label(router)}: sends rows to {listing(lacking)}, which no file is given"
            " for. Give their task files, or heads that have them."
        )
    return made


@dataclass(frozen=True)
class _Behind:
    """`modules.switching.Behind`, of files that `breadcrumbs learn` wrote."""

    heads: Heads | None
    router: Router | None

    @property
    def tasks(self) -> tuple[str, ...]:
        return () if self.heads is None else tuple(self.heads.numbers)

    def features(self, task: str, features: Any) -> Any:
        assert self.heads is not None
        return self.heads.features(task, features)

    def head(self, task: str, head: Any) -> Any:
        assert self.heads is not None
        where = next((t.device for t in head.values() if hasattr(t, "device")), "cpu")
        return self.heads.head(task, head, where)

    def route(self, features: Any) -> list[str]:
        if self.router is None:
            raise RecipeError("route: there is no router. Give switch(..., router=FILE).")
        return [self.router.tasks[number] for number in self.router.choose(features)]
