"""Which vocabulary the merged model has: the tokens of its rows, and whose tokenizer is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.checkpoint.vocabulary import Vocabulary
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.plan.recipe import Recipe

BASE, UNION = "base", "union"
_SHOWN = 5


@dataclass(frozen=True)
class Speaker:
    """A model, the rows of its embedding, and the tokens that these are of.

    vocabulary: what its files say. ids: the tokens that have a row. known: whether its own files
    say so, and it is not taken to have the tokens of another model of as many rows.
    """

    model: Checkpoint
    rows: int
    vocabulary: Vocabulary
    ids: Mapping[str, int]
    known: bool

    @property
    def label(self) -> str:
        return self.model.label


@dataclass(frozen=True)
class Target:
    """A vocabulary to merge under.

    ids: the tokens of its rows. rows: how many there are. owner: the model that numbers them so, of
    which the padding is. tokenizer: the model whose tokenizer is written. added: tokens that its
    files lack, with how they are found in a text, in the order of their numbers. pieces: of these
    the tokens that are pieces of another tokenizer. called: what it is called.
    """

    ids: Mapping[str, int]
    rows: int
    owner: Speaker
    tokenizer: Speaker
    added: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    pieces: frozenset[str] = frozenset()
    called: str = ""


def chosen(recipe: Recipe, home: Speaker, speakers: Sequence[Speaker]) -> Target:
    """Return the vocabulary that a recipe asks for; else the smallest that loses no token.

    home: the model to which steps are added. speakers: all models, it among them. RecipeError for a
    tokenizer that does not fit.
    """
    wanted = None if recipe.tokenizer is None else _of(recipe.tokenizer, speakers)
    if wanted is not None:
        _check_own(wanted)
    if recipe.vocabulary == UNION:
        return _padded(recipe, _union(wanted or home, speakers))
    if recipe.vocabulary is not None:
        owner = home if recipe.vocabulary == BASE else _of(recipe.vocabulary, speakers)
        if owner is not home:
            _check_own(owner)
        if wanted is not None:
            _check_fits(wanted, owner)
        return _padded(recipe, _of_one(owner, wanted, speakers))
    every = {token for speaker in speakers for token in speaker.ids}
    for owner in [home, *speakers]:
        whole = len(owner.ids) == len(every) and (owner is home or not beyond(owner))
        if whole and (wanted is None or not _misfits(wanted, owner)):
            return _padded(recipe, _of_one(owner, wanted, speakers))
    made = _union(wanted or home, speakers)
    if made.pieces:
        start = made.tokenizer
        others = [s.label for s in speakers if any(t in made.pieces for t in s.ids)]
        raise MismatchError(
            f"{others[0]}: its tokenizer is not that of {start.label}: only it has"
            f" {_some([t for t in made.added if t in made.pieces])}, so no vocabulary of the models"
            " has all tokens. Choose one: --vocabulary base, union, or a model's path (`vocabulary`"
            " in a recipe)."
        )
    return _padded(recipe, made)


def _of(path: str, speakers: Sequence[Speaker]) -> Speaker:
    """Return the model that a recipe names."""
    for speaker in speakers:
        names = [speaker.model, *speaker.model.parts]
        if any(path in (one.label, one.repo) for one in names):
            return speaker
    raise RecipeError(
        f"recipe: {path} has no embedding whose rows are known by token. Give another model."
    )


def _of_one(owner: Speaker, wanted: Speaker | None, speakers: Sequence[Speaker]) -> Target:
    """Return the vocabulary of a model. wanted: whose tokenizer fits it; tokens that this lacks are
    added, if they follow its own."""
    found = Target(owner.ids, owner.rows, owner, wanted or owner)
    if wanted is not None and len(wanted.vocabulary.ids) < len(owner.ids):
        made = _union(wanted, speakers)
        if made.ids == owner.ids and not made.pieces:
            return replace(found, added=made.added)
    return found


def _union(start: Speaker, speakers: Sequence[Speaker]) -> Target:
    """Return the tokens of a model and, numbered after them, those that it lacks of all others."""
    ids = dict(start.vocabulary.ids if start.known else start.ids)
    number = max(ids.values(), default=-1) + 1
    added: dict[str, Mapping[str, bool]] = {}
    pieces = set()
    for speaker in speakers:
        for token in sorted(speaker.ids, key=speaker.ids.__getitem__):
            if token not in ids:
                ids[token], number = number, number + 1
                added[token] = speaker.vocabulary.added.get(token, {})
                if token not in speaker.vocabulary.added:
                    pieces.add(token)
    rows = max(start.rows, number)
    return Target(ids, rows, start, start, added, frozenset(pieces), "the union of all")


def _with_asked(recipe: Recipe, target: Target) -> Target:
    """Return the vocabulary with the tokens that a recipe speaks of and no model has.

    RecipeError where they cannot follow those of the tokenizer.
    """
    more = [token for token in recipe.tokens if token not in target.ids]
    number = max(target.ids.values(), default=-1) + 1
    its = target.tokenizer.vocabulary.ids
    last = max((*its.values(), *(target.ids[token] for token in target.added)), default=-1)
    if more and last + 1 != number:
        raise RecipeError(
            f"recipe: tokens: {_some(more)} cannot be added to the tokenizer of"
            f" {target.tokenizer.label}, since the vocabulary has other tokens where it would put"
            " them. Give vocabulary: union, or leave --tokenizer out."
        )
    ids = {**target.ids, **{token: number + i for i, token in enumerate(more)}}
    return replace(
        target,
        ids=ids,
        rows=max(target.rows, number + len(more)),
        added={**target.added, **{token: {} for token in more}},
    )


def _padded(recipe: Recipe, target: Target) -> Target:
    """Return the vocabulary with as many rows as a recipe says, and a name."""
    target = _with_asked(recipe, target)
    rows, called = target.rows, target.called or f"that of {target.owner.label}"
    if recipe.pad_to is not None:
        number = max(target.ids.values(), default=-1) + 1
        rows = -(-number // recipe.pad_to) * recipe.pad_to
    return replace(target, rows=rows, called=called)


# --- a tokenizer and the rows ---


def beyond(speaker: Speaker) -> list[str]:
    """Return the tokens of a model's tokenizer for which its embedding has no row, in order."""
    ids = speaker.vocabulary.ids if speaker.known else {}
    return sorted((t for t, i in ids.items() if i >= speaker.rows), key=ids.__getitem__)


def _check_own(speaker: Speaker) -> None:
    """Raise RecipeError if a tokenizer that is to be written has tokens without rows."""
    check_rows(speaker.label, speaker.vocabulary, speaker.rows)


def check_rows(label: str, vocabulary: Vocabulary, rows: int) -> None:
    """Raise RecipeError if a tokenizer has tokens beyond the rows of an embedding."""
    more = {token: i for token, i in vocabulary.ids.items() if i >= rows}
    if more:
        last = max(more.values())
        raise RecipeError(
            f"{label}: its tokenizer has tokens beyond the {rows} rows of the embedding:"
            f" {_some(sorted(more, key=more.__getitem__))} (up to number {last}). A text with one"
            " of them fails. Give a tokenizer that fits, or leave --tokenizer out."
        )


def _misfits(wanted: Speaker, owner: Speaker) -> list[str]:
    """Return the tokens of a tokenizer that have another row in a vocabulary, or none."""
    ids = wanted.vocabulary.ids if wanted.known else wanted.ids
    return [token for token, number in ids.items() if owner.ids.get(token) != number]


def _check_fits(wanted: Speaker, owner: Speaker) -> None:
    wrong = _misfits(wanted, owner)
    if wrong:
        what = "no rows" if not any(t in owner.ids for t in wrong) else "other rows or none"
        raise RecipeError(
            f"{wanted.label}: its tokenizer does not fit the vocabulary of {owner.label}, which has"
            f" {what} for {_some(wrong)}. Give --vocabulary {wanted.label} or --vocabulary union,"
            " or leave --tokenizer out."
        )


def _some(tokens: Sequence[str]) -> str:
    """Return some tokens in quotes, and how many more there are."""
    more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
    return ", ".join(map(shown, tokens[:_SHOWN])) + more


def said(
    target: Target, base: Speaker, speakers: Sequence[Speaker], asked: Collection[str] = ()
) -> str:
    """Return in a line which vocabulary it is, where rows are from and what is lost.

    asked: tokens of whose rows a recipe speaks.
    """
    line = (
        f"the vocabulary is {target.called}: {len(target.ids):,} tokens in {target.rows:,} rows;"
        " rows are matched by token"
    )
    owners: dict[str, list[str]] = {}
    for speaker in speakers:
        for token in speaker.ids:
            if token in target.ids and token not in base.ids and token not in asked:
                owners.setdefault(token, []).append(speaker.label)
    alone: dict[str, list[str]] = {}
    for token, labels in owners.items():
        if len(labels) == 1:
            alone.setdefault(labels[0], []).append(token)
    for label, tokens in alone.items():
        line += f"; {_some(tokens)} taken from {label}"
    shared = [token for token, labels in owners.items() if len(labels) > 1]
    if shared:
        line += f"; {_some(shared)} averaged over the models that have them"
    if asked:
        line += f"; {_some(list(asked))} as the recipe says"
    lost = {t: s.label for s in speakers for t in s.ids if t not in target.ids}
    if lost:
        line += f"; left out: {_some(list(lost))} of {', '.join(dict.fromkeys(lost.values()))}"
    return line
