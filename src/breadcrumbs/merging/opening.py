"""From what users give (paths, mappings, names, globs) to open models and a plan."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from breadcrumbs import checkpoint, plan
from breadcrumbs.checkpoint import Weights, beside, composite, live, mirrors, sinusoids
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import CheckpointError, RecipeError, counted
from breadcrumbs.plan import USUAL, Plan, Sizes
from breadcrumbs.plan.partners import refused
from breadcrumbs.plan.recipe import SPACES, Model, Recipe


class Module(Protocol):
    """What a Torch module has, without importing Torch."""

    def state_dict(self) -> Any:
        """Return the tensors by name."""
        ...


#: A path, hub id, state dict, open checkpoint, or Torch module, which has `state_dict`.
Source = str | os.PathLike[str] | Mapping[str, Any] | Module


def named(models: Iterable[Source], names: Iterable[str] | None = None) -> tuple[Model, ...]:
    """Return models as a recipe has them; RecipeError for another number of names."""
    models = listed(models)
    called = each("names", names, models)
    for name in called or ():
        if not isinstance(name, str):
            raise RecipeError(f"names: {shown(name)} is not a string.")
    return tuple(
        Model(label(model, f"model {i + 1}"), name=called[i] if called else "")
        for i, model in enumerate(models)
    )


def listed(models: Any) -> list[Source]:
    """Return models as a list; RecipeError for one alone, which would be taken for a list."""
    if models is None:
        raise RecipeError("models: found None where a list is expected. Give [model].")
    if isinstance(models, Mapping) and any(_is_model(value) for value in models.values()):
        raise RecipeError(
            "models: found a dict of models where a list is expected. Give `list(models.values())`,"
            " and `names=list(models)` to name them."
        )
    if not _is_list(models) or hasattr(models, "state_dict"):
        what = "one model" if _is_model(models) else type(models).__name__
        raise RecipeError(f"models: found {what} where a list is expected. Give [model].")
    return list(models)


def _is_model(given: Any) -> bool:
    return isinstance(given, str | os.PathLike | Mapping) or live.is_module(given)


def each(key: str, given: Any, models: Sequence[Source]) -> list[Any] | None:
    """Return what is given for each model as a list; RecipeError unless it is one for each."""
    if given is None:
        return None
    if not _is_list(given):
        raise RecipeError(
            f"{key}: found one value where a list is expected. Give one for each model."
        )
    given = list(given)
    if len(given) != len(models):
        raise RecipeError(f"{key}: found {len(given)} for {counted(len(models), 'model')}.")
    return given


def _is_list(given: Any) -> bool:
    """Whether something is a sequence of things, and none of the things itself."""
    alone = isinstance(given, str | bytes | os.PathLike | Mapping) or live.is_module(given)
    is_tensor = hasattr(given, "dtype") and len(getattr(given, "shape", (0,))) != 1
    return isinstance(given, Iterable) and not alone and not is_tensor


def numbers(key: str, given: Any, models: Sequence[Source]) -> list[float] | None:
    """Return a number for each model; RecipeError for what is none."""
    found = each(key, given, models)
    if found is None:
        return None
    for i, value in enumerate(found):
        try:
            found[i] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise RecipeError(f"{key}: {shown(value)} is not a number.") from None
    return found


def whole(key: str, given: Any) -> int:
    """Return a whole number from 0 on; RecipeError for anything else."""
    try:
        found = -1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        found = -1
    if found < 0:
        raise RecipeError(f"{key}: {shown(given)} is not a whole number of 0 or more.")
    return found


def _plain(value: Any) -> Any:
    """Return the number in an array or tensor of one, and anything else as it is."""
    one = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if one and not isinstance(value, np.generic) else value


def plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with the numbers of scalars of Torch and NumPy in their place."""
    return {key: _plain(value) for key, value in given.items()}


def dtype_name(given: Any) -> Any:
    """Return the name of a dtype that may be Torch's or NumPy's own."""
    if given is None or isinstance(given, str):
        return given
    if type(given).__module__.partition(".")[0] == "torch":
        return str(given).removeprefix("torch.")
    try:
        return np.dtype(given).name
    except TypeError:
        return given  # which is refused by name


def globs(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return one glob or several, or rules that rename, as a recipe has them."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,)
    if not isinstance(given, Iterable):
        raise RecipeError(f"{shown(given)} is not a tensor name. Give globs, such as 'lm_head*'.")
    found = tuple(given)
    for one in found:
        if not isinstance(one, str):
            raise RecipeError(f"{shown(one)} is not a tensor name. Give globs of names.")
    return found


def label(source: Source, otherwise: str) -> str:
    """Return how messages call a source: its path, or ``otherwise`` for arrays in memory."""
    if isinstance(source, Checkpoint | Weights):
        return source.label
    if live.is_module(source) or isinstance(source, Mapping):
        return otherwise
    if not isinstance(source, str | os.PathLike):
        raise CheckpointError(f"{otherwise}: {checkpoint.not_a_source(source)}")
    return os.fsdecode(source)


def under(base: Any, files: bool = False) -> Any:
    """Return what a base is merged from: of a module that holds adapters, itself without them.

    files: under the names that its files have, if it is one of transformers.
    """
    if not live.is_module(base):
        return base
    found = live.in_files(base) if files else base
    return found if getattr(found, "called", None) else live.underneath(base)


def any_files(models: Iterable[Any]) -> bool:
    """Whether there are files among models, whose names count then."""
    return any(map(_is_file, models))


def alongside(base: Any, models: Iterable[Any]) -> list[Any]:
    """Return what models are read from: modules under the names of files, if the base is one.

    base: what `under` returned of it.
    """
    files = _is_file(base) or bool(getattr(base, "called", None))
    return [live.in_files(it) if files and live.is_module(it) else it for it in models]


def _is_file(source: Any) -> bool:
    return isinstance(source, str | os.PathLike | Checkpoint | Weights)


class opened:
    """A context that opens a recipe's checkpoints, gives its plan and closes them.

    sources: what to open instead of the recipe's paths: the base, the models, their statistics,
    `onto`, as far as there are any. sizes: in what pieces the plan is carried out. by_token,
    on_base: as for `planned`.
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: Sequence[Source] | None = None,
        sizes: Sizes = USUAL,
        *,
        by_token: bool = False,
        on_base: bool = False,
    ):
        self.recipe, self.sizes, self.by_token, self.on_base = recipe, sizes, by_token, on_base
        self.sources = sources or recipe.paths
        self.stack = ExitStack()

    def __enter__(self) -> Plan:
        labels = self.recipe.paths
        with self.stack:
            found = [
                self.stack.enter_context(checkpoint.open(source, label))
                for source, label in zip(self.sources, labels, strict=True)
            ]
            mirrors.check_room(file for it in found for file in it.files)
            made = planned(
                self.recipe, found, self.sizes, by_token=self.by_token, on_base=self.on_base
            )
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
    on_base: bool = False,
) -> Plan:
    """Return the plan of a recipe for its open checkpoints, those of ``recipe.paths``, in order.

    Task files and adapters among them become the fine-tunings that they stand for, and models of
    other names those under the base's. by_token: whether rows of embeddings are matched by token
    where the vocabularies differ, so that the output may have other rows than the base. on_base:
    whether they are matched so that it has the base's rows. With neither, that is an error.
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
    if on_base:
        models, words = vocabulary.on_base(recipe, base, models)
    elif by_token:
        it = vocabulary.matched(recipe, base, models, onto, statistics)
        base, models, onto, statistics = it.base, it.models, it.onto, it.statistics
        words = it.words
    else:
        vocabulary.check(recipe, base, [*models, *([onto] if onto is not None else [])])
    wanted = recipe.tokenizer
    tokenizer = next((c for c in checkpoints if wanted and wanted in (c.label, c.repo)), None)
    lines = beside.notices(onto or base, given, words.tokenizer if words else tokenizer)
    make = plan.make
    if recipe.space != SPACES[0]:
        from breadcrumbs.plan import spaces

        make = spaces.make
    made = make(recipe, base, models, onto, statistics)
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
