"""Models of different vocabularies: which the merged model has, and the models under it.

Rows of embeddings, heads and their biases are matched by token, wherever the tokenizers beside the
weights can be read. What comes out are views of the models; nothing else of a plan knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from breadcrumbs.checkpoint import parts, tables, tied, vocabulary
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.vocabulary import Vocabulary
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.plan import ties
from breadcrumbs.plan.judgement import beside
from breadcrumbs.plan.partners import copied
from breadcrumbs.plan.recipe import SAME, Recipe
from breadcrumbs.plan.vocabulary import target as targets
from breadcrumbs.plan.vocabulary import views
from breadcrumbs.plan.vocabulary.target import Speaker, Target
from breadcrumbs.plan.words import Words


@dataclass(frozen=True)
class Matched:
    """Models under one vocabulary. words: which; None where all have it and nothing was done."""

    base: Checkpoint
    models: list[Checkpoint]
    onto: Checkpoint | None
    statistics: list[Checkpoint]
    words: Words | None = None


def matched(
    recipe: Recipe,
    base: Checkpoint,
    models: Sequence[Checkpoint],
    onto: Checkpoint | None = None,
    statistics: Sequence[Checkpoint] = (),
) -> Matched:
    """Return models, which have the base's names, under the vocabulary of the recipe.

    As they are where all have the same rows. MismatchError or RecipeError where rows differ and it
    cannot be told which tokens they are of, or a tokenizer is asked for that does not fit.
    """
    as_it_is = Matched(base, list(models), onto, list(statistics))
    found = tables.by_token(base)
    asked = _asks(recipe)
    if not found:
        if asked:
            raise RecipeError(
                f"recipe: {base.label} has no known embedding with a row for each token, so leave"
                " vocabulary, pad_to and tokens out."
            )
        return as_it_is
    if recipe.vocabulary is None and not asked and _keeps_tables(recipe, base, found):
        return as_it_is
    sources = [base, *models, *([onto] if onto is not None else [])]
    rows = [_rows(source, found) for source in sources]
    with_rows = [(s, n) for s, n in zip(sources, rows, strict=True) if n]
    differ = len({n for _, n in with_rows}) > 1
    folders = [beside.folder_of(source) if source.cut is None else None for source in sources]
    if not asked and not differ and _are_alike(folders):
        return as_it_is
    read = _read(folders)
    _check_tokenizer(recipe, sources, rows, read)
    speakers = _speakers(sources, rows, read, needed=asked or differ)
    if speakers is None:
        return as_it_is
    home = speakers[-1 if onto is not None else 0]
    target = targets.chosen(recipe, home, speakers)
    numbers = views.numbers(target, speakers[0], speakers, recipe.tokens)
    if views.is_as_it_is(numbers) and not target.added and _keeps(recipe, target, home):
        return as_it_is
    _check_stacks(sources)
    base = ties.untied(recipe, base, models)
    found = tables.by_token(base)
    speakers = [replace(speakers[0], model=base), *speakers[1:]]
    numbers = replace(numbers, speakers=speakers, target=_of_owner(target, speakers))
    weights = {k + 1: model.weight for k, model in enumerate(recipe.models)}
    seen = views.made(numbers, weights, found, _aliases(base, models, found))
    last = seen[-1] if onto is not None else None
    if recipe.dtype == SAME:
        views.check_quantised([(last or seen[0]).tensors[name] for name in found], home.label)
    told = [views.statistics(numbers, k + 1, file, found) for k, file in enumerate(statistics)]
    words = _words(recipe, target, home, speakers)
    return Matched(seen[0], seen[1 : len(models) + 1], last, told, words)


def _asks(recipe: Recipe) -> bool:
    """Return whether a recipe says more of the vocabulary than that it is the base's."""
    more = recipe.vocabulary not in (None, targets.BASE)
    return more or recipe.pad_to is not None or bool(recipe.tokens)


def check(recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint]) -> None:
    """Raise MismatchError if embeddings differ in their rows, where these are not matched."""
    if _asks(recipe):
        raise RecipeError(
            "recipe: vocabulary, pad_to and tokens work only in `breadcrumbs merge` and `compare`,"
            " which match rows by token. Leave them out here."
        )
    found = tables.by_token(base)
    rows = _rows(base, found)
    if _keeps_tables(recipe, base, found):
        return
    for model in models:
        its = _rows(model, found)
        if rows and its and its != rows:
            raise MismatchError(
                f"{_shapes(model, base)}. Rows are not matched by token here. Bring it to"
                " the base's vocabulary first: breadcrumbs merge"
                f" {base.label} {model.label} -m task_arithmetic -p alpha=1 --vocabulary base"
                " -o OUT"
            )


def on_base(
    recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint]
) -> tuple[list[Checkpoint], Words | None]:
    """Return models with the base's rows, matched by token, and what is to be said of these.

    For what is kept beside the base as it is: task files, archives, stores. Models are as they are,
    and nothing is to be said, where the rows are the same. MismatchError where it cannot be told
    which tokens rows are of.
    """
    found = tables.by_token(base)
    rows = {_rows(source, found) for source in (base, *models)} - {0}
    if _asks(recipe) or len(rows) < 2 or _keeps_tables(recipe, base, found):
        check(recipe, base, models)
        return list(models), None
    made = matched(replace(recipe, vocabulary=targets.BASE), base, models)
    return made.models, made.words


def _keeps_tables(recipe: Recipe, base: Checkpoint, found: Mapping[str, int]) -> bool:
    """Return whether a recipe copies all tables of the base, and so keeps its vocabulary."""
    return all(copied(recipe, base.tensors[name]) for name in found)


def _rows(model: Checkpoint, found: Mapping[str, int]) -> int:
    """Return how many rows the tables of a model have that the base has too; 0 if it has none.

    found: the base's tables, with the axes of their rows.
    """
    for name, axis in found.items():
        if name in model.tensors and len(model.tensors[name].shape) > axis:
            return model.tensors[name].shape[axis]
    return 0


def _shapes(model: Checkpoint, base: Checkpoint) -> str:
    """Return in words that a table has other shapes in two models."""
    found = [name for name in tables.by_token(base) if name in model.tensors]
    name = max(found, key=lambda name: len(base.tensors[name].shape))
    its, theirs = model.tensors[name].shape, base.tensors[name].shape
    return f"{model.label}: tensor {name!r} has shape {its}, {base.label} has {theirs}"


def _are_alike(folders: Sequence[Path | None]) -> bool:
    """Return whether the tokenizers of all folders that have one are the same bytes."""
    having = [(folder, names) for folder in folders if folder and (names := _files(folder))]
    if not having:
        return True
    first, known = having[0]
    return all(
        names == known and all(beside.same(folder / n, first / n) for n in names)
        and vocabulary.listed(folder) == vocabulary.listed(first)
        for folder, names in having[1:]
    )  # fmt: skip


def _files(folder: Path) -> list[str]:
    """Return the names of the files that say which tokens a model has, but for the config, of
    which a part alone does."""
    about = ("special_tokens", "chat_template", "tokenization_", vocabulary.CONFIG)
    try:
        names = [path.name for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []
    return sorted(n for n in names if parts.is_tokenizer(n) and not n.startswith(about))


def _read(folders: Sequence[Path | None]) -> list[Vocabulary | None]:
    """Return the vocabularies in folders, each file that is the same bytes read once."""
    found: list[Vocabulary | None] = []
    known: list[tuple[Path, Vocabulary]] = []
    for folder in folders:
        mine = None
        if folder is not None and _files(folder):
            same = (v for other, v in known if _are_alike([folder, other]))
            mine = next(same, None) or vocabulary.read(folder)
        found.append(mine)
        if folder is not None and mine is not None:
            known.append((folder, mine))
    return found


def _check_tokenizer(
    recipe: Recipe,
    sources: Sequence[Checkpoint],
    rows: Sequence[int],
    read: Sequence[Vocabulary | None],
) -> None:
    """Raise RecipeError if a tokenizer that is asked for has tokens without rows of their own."""
    wanted = recipe.tokenizer
    for source, number, mine in zip(sources, rows, read, strict=True):
        asked = wanted is not None and wanted in (source.label, source.repo)
        if asked and mine is not None and number:
            targets.check_rows(source.label, mine, number)


def _speakers(
    sources: Sequence[Checkpoint],
    rows: Sequence[int],
    read: Sequence[Vocabulary | None],
    needed: bool,
) -> list[Speaker] | None:
    """Return the models with their tokens; None if nothing can be told and need not.

    A model of unknown tokens has those of another one of as many rows, the base first.
    """
    told = [(n, v) for n, v in zip(rows, read, strict=True) if v is not None and v.whole]
    found = []
    for source, number, mine in zip(sources, rows, read, strict=True):
        known = mine is not None and mine.whole
        like = mine if known else next((v for n, v in told if n == number or not number), None)
        if like is None:
            if not needed:
                return None
            raise _untold(source, sources, rows)
        ids = like.below(number or max(rows))
        found.append(Speaker(source, number or max(rows), like, ids, known))
    return found


def _untold(
    source: Checkpoint, sources: Sequence[Checkpoint], rows: Sequence[int]
) -> MismatchError:
    """Return an error about a model of which the tokens are not known."""
    base, first = sources[0], rows[0]
    other = next((s for s, n in zip(sources, rows, strict=True) if n and n != first), None)
    why = f"{source.label}: " if other is None else f"{_shapes(other, base)}, and "
    what, do = (
        f"no tokenizer beside {source.label} tells",
        ("Copy its tokenizer.json (or vocab.json, vocab.txt, tokenizer.model) into its folder,"),
    )
    if not source.files:
        what = f"{source.label} is in memory, without a tokenizer that tells"
        do = "Save it and its tokenizer into one folder, and give that,"
    return MismatchError(
        f"{why}{what} which tokens its rows are of, so they cannot be matched by token. {do} or"
        " `exclude` embedding and head to keep the base's."
    )


def _check_stacks(sources: Sequence[Checkpoint]) -> None:
    """Raise MismatchError for layers of models of different vocabularies on each other."""
    for source in sources:
        found = [vocabulary.read(beside.folder_of(part)) for part in source.parts]
        if any(v is not None and found[0] is not None and v.ids != found[0].ids for v in found):
            raise MismatchError(
                f"{source.label}: the models that it is made of have different tokenizers. Merge"
                " each with the base under one vocabulary first (--vocabulary base)."
            )


def _keeps(recipe: Recipe, target: Target, home: Speaker) -> bool:
    """Return whether the tokenizer that is written is the one that would be anyway."""
    return recipe.tokenizer is not None or target.tokenizer is home


def _of_owner(target: Target, speakers: Sequence[Speaker]) -> Target:
    """Return the target with the base as it is among the speakers, whose head may be apart now."""
    mine = [s for s in speakers if s.label == target.owner.label and s.ids is target.owner.ids]
    return replace(target, owner=mine[0]) if mine else target


def _aliases(
    base: Checkpoint, models: Sequence[Checkpoint], found: Mapping[str, int]
) -> dict[str, str]:
    """Return tables that only models have, and the one of the base that each is as."""
    aliases = {}
    for model in models:
        for name, axis in tables.by_token(model).items():
            if name in found:
                continue
            shape = model.tensors[name].shape
            alike = [
                n
                for n, a in found.items()
                if a == axis and len(base.tensors[n].shape) == len(shape)
            ]
            if alike:
                aliases[name] = tied.ties(base).get(name, alike[0])
    return aliases


def _words(recipe: Recipe, target: Target, home: Speaker, speakers: Sequence[Speaker]) -> Words:
    moved = {
        number: target.ids[token]
        for token, number in home.ids.items()
        if target.ids.get(token, number) != number
    }
    ids = {token: target.ids[token] for token in target.added}
    said = targets.said(target, speakers[0], speakers, recipe.tokens)
    tokenizer = None if target.tokenizer.label == home.label else target.tokenizer.model
    return Words(target.rows, tokenizer, ids, target.added, target.pieces, moved, said)
