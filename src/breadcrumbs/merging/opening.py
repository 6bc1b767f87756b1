"""From what users give (paths, mappings, names, globs) to open models and a plan."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from breadcrumbs import checkpoint, plan
from breadcrumbs.checkpoint import beside, composite, sinusoids
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError, RecipeError
from breadcrumbs.plan import USUAL, Plan, Sizes
from breadcrumbs.plan.partners import refused
from breadcrumbs.plan.recipe import Model, Recipe

Source = str | os.PathLike[str] | Mapping[str, Any]


def named(models: Sequence[Source], names: Sequence[str] | None = None) -> tuple[Model, ...]:
    """Return models as a recipe has them; RecipeError for another number of names."""
    models = listed(models)
    check_length("names", names, models)
    return tuple(
        Model(label(model, f"model {i + 1}"), name=names[i] if names else "")
        for i, model in enumerate(models)
    )


def listed(models: Iterable[Source]) -> list[Source]:
    """Return models as a list; RecipeError for one alone, which would be taken for a list."""
    if isinstance(models, str | os.PathLike | Mapping) or hasattr(models, "state_dict"):
        raise RecipeError("models: found one model where a list is expected. Give [model].")
    return list(models)


def check_length(key: str, given: Sequence[Any] | None, models: Sequence[Source]) -> None:
    """Raise RecipeError unless what is given is one for each model."""
    if given is not None and len(given) != len(models):
        raise RecipeError(f"{key}: {len(given)} are given for {len(models)} models.")


def globs(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return one glob or several, or rules that rename, as a recipe has them."""
    return (given,) if isinstance(given, str) else tuple(given)


def label(source: Source, otherwise: str) -> str:
    """Return how messages call a source: its path, or ``otherwise`` for arrays in memory."""
    if isinstance(source, Checkpoint):
        return source.label
    if not isinstance(source, str | os.PathLike | Mapping):
        raise CheckpointError(f"{otherwise}: {checkpoint.not_a_source(source)}")
    return otherwise if isinstance(source, Mapping) else os.fspath(source)


class opened:
    """A context that opens a recipe's checkpoints, gives its plan and closes them.

    sources: what to open instead of the recipe's paths: the base, the models, their statistics,
    `onto`, as far as there are any. sizes: in what pieces the plan is carried out. by_token: as for
    `planned`.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: Sequence[Source] | None = None,
        sizes: Sizes = USUAL,
        *,
        by_token: bool = False,
    ):
        self.recipe, self.sizes, self.by_token = recipe, sizes, by_token
        self.sources = sources or recipe.paths
        self.stack = ExitStack()

    def __enter__(self) -> Plan:
        labels = self.recipe.paths
        with self.stack:
            found = [
                self.stack.enter_context(checkpoint.open(source, label))
                for source, label in zip(self.sources, labels, strict=True)
            ]
            made = planned(self.recipe, found, self.sizes, by_token=self.by_token)
            self.stack = self.stack.pop_all()
        return made

    def __exit__(self, *error: object) -> None:
        self.stack.close()


def planned(
    recipe: Recipe,
    checkpoints: Sequence[Checkpoint],
    sizes: Sizes = USUAL,
    *,
    by_token: bool = False,
) -> Plan:
    """Return the plan of a recipe for its open checkpoints, those of ``recipe.paths``, in order.

    Task files and adapters among them become the fine-tunings that they stand for, and models of
    other names those under the base's. by_token: whether rows of embeddings are matched by token
    where the vocabularies differ, so that the output may have other rows than the base; else that
    is an error.
    """
    from breadcrumbs.checkpoint.adapters import inserted
    from breadcrumbs.plan import naming, vocabulary
    from breadcrumbs.taskfile import view

    first = inserted.narrow(checkpoints[0])
    names = [[*model.rename, *recipe.rename] for model in recipe.models]
    rules = [(), *names, *[recipe.rename] * (len(checkpoints) - 1 - len(names))]
    opened = view.on_base(
        first,
        [first, *checkpoints[1:]],
        rules,
        lambda lacking: refused(recipe.extra, "ignore", lacking),
    )
    base, *models = opened
    onto = inserted.narrow(models.pop()) if recipe.onto is not None else None
    number = len(recipe.models)
    others = [*models[:number], *([onto] if onto is not None else [])]
    composite.check_parts(base, others, recipe.missing, recipe.extra)
    given = models[:number]
    models, onto, statistics, notes = naming.under_base(
        recipe, base, models[:number], onto, models[number:]
    )
    base, *found = sinusoids.told([base, *models, *([onto] if onto is not None else [])])
    models, onto = found[: len(models)], found[-1] if onto is not None else None
    words = None
    if by_token:
        it = vocabulary.matched(recipe, base, models, onto, statistics)
        base, models, onto, statistics = it.base, it.models, it.onto, it.statistics
        words = it.words
    else:
        vocabulary.check(recipe, base, [*models, *([onto] if onto is not None else [])])
    wanted = recipe.tokenizer
    tokenizer = next((c for c in checkpoints if wanted and wanted in (c.label, c.repo)), None)
    lines = beside.notices(onto or base, given, words.tokenizer if words else tokenizer)
    made = plan.make(recipe, base, models, onto, statistics)
    said = [f"{it.label}: {note}" for it in opened for note in it.notes]
    warnings = (*made.warnings, *lines, *(line for it in opened for line in it.warnings))
    if base.untied:
        from breadcrumbs.checkpoint.adapters import placing

        warnings = (*warnings, placing.said(base, base.untied))
    notes = (*said, *([words.said] if words else []), *notes, *made.notes)
    return replace(made, notes=notes, warnings=warnings, sizes=sizes, words=words)


def without_same_parts(it: Plan) -> Plan:
    """Return the plan with the parts of a model copied that are the base's in every model."""
    same = composite.same_parts(it.base, it.models) if it.onto is None else []
    start = tuple(f"{part}/" for part in same)
    tensors = (
        replace(t, copied="unchanged") if not t.copied and t.name.startswith(start) else t
        for t in it.tensors
    )
    return replace(it, tensors=tuple(tensors)) if same else it
