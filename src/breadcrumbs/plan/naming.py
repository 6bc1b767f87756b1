"""Models of other names -> models under the base's: by the recipe's rules, then by a prefix."""

from __future__ import annotations

from collections.abc import Sequence

from breadcrumbs.checkpoint import names, renaming
from breadcrumbs.checkpoint.renaming import Rule
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.plan import ties
from breadcrumbs.plan.recipe import Recipe


def under_base(
    recipe: Recipe,
    base: Checkpoint,
    models: Sequence[Checkpoint],
    onto: Checkpoint | None = None,
    statistics: Sequence[Checkpoint] = (),
) -> tuple[list[Checkpoint], Checkpoint | None, list[Checkpoint], tuple[str, ...]]:
    """Return the models, `onto` and the statistics under the base's names, and what was done.

    Task files have the base's names. Rules of the recipe are for all models and `onto`, those of a
    model come before them; RecipeError for a rule that matches nothing. A model's statistics follow
    its names.
    """
    common = [renaming.parse(text) for text in recipe.rename]
    used: set[Rule] = set()
    found: list[Checkpoint] = []
    notes: list[str] = []
    for asked, model in zip(recipe.models, models, strict=True):
        own = [renaming.parse(text) for text in asked.rename]
        view, mine = _view(base, model, [*own, *common], notes)
        renaming.check_used(own, mine, [model])
        used |= mine
        found.append(view)
    if onto is not None:
        target, mine = _view(base, onto, common, notes)
        used |= mine
    else:
        target = None
    everything = [*models, *([onto] if onto is not None else [])]
    renaming.check_used(common, used, everything)
    told = [_like(model, arrays) for model, arrays in zip(found, statistics, strict=False)]
    return found, target, told, tuple(dict.fromkeys(notes))


def of_one(base: Checkpoint, model: Checkpoint, rules: Sequence[str] = ()) -> Checkpoint:
    """Return a model under the base's names."""
    parsed = [renaming.parse(text) for text in rules]
    view, used = _view(base, model, parsed, [])
    renaming.check_used(parsed, used, [model])
    return view


def _view(
    base: Checkpoint, model: Checkpoint, rules: list[Rule], notes: list[str]
) -> tuple[Checkpoint, set[Rule]]:
    """Return a model under the base's names, and the rules that matched names of its own."""
    if model.cut is not None:
        return model, set()
    if model.adapter is not None and model.inserted:  # renamed when it was put into the base
        return model, {rule for rule in rules if any(map(rule.of, model.inserted.called))}
    view, used = renaming.apply(rules, model) if rules else (model, set())
    view, note = names.matched(base, view)
    view, tie = ties.under_its_name(base, view)
    notes.extend(filter(None, (note, tie)))
    return view, used


def _like(model: Checkpoint, statistics: Checkpoint) -> Checkpoint:
    """Return statistics under the names that their model has got."""
    new = {first: name for name, first in model.called.items()}
    mine = {name: new[name] for name in statistics.tensors if name in new}
    return names.renamed(statistics, mine) if mine else statistics
