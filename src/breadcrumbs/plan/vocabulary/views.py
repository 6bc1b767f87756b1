"""Models under one vocabulary: views whose tables have a row for each of its tokens.

A token that the base has is merged as any row. One that it lacks is no part of the merge: the base
of the views has the row of the model that has it (the mean of several), and so have all models, so
that its task vector is 0. The same holds for a token that a model lacks, which is the base's there,
and for padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import rows as gather
from breadcrumbs.checkpoint import tied
from breadcrumbs.checkpoint.rows import MEAN, SEVERAL, ZERO, Rows
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, RecipeError
from breadcrumbs.plan.vocabulary.target import Speaker, Target


@dataclass(frozen=True)
class Numbers:
    """The rows of a target in the models' tables. own: for each model the row (n,) of each, -1
    where it has none. asked: for rows that a recipe speaks of, which model's row it is, of what
    number there (-1: zeros), and whether it is forced."""

    target: Target
    speakers: Sequence[Speaker]
    own: Sequence[np.ndarray]
    named: np.ndarray
    asked: Mapping[int, tuple[int, int, bool]]


def numbers(target: Target, base: Speaker, speakers: Sequence[Speaker], tokens: Any) -> Numbers:
    """Return where the rows of a target lie. tokens: what the recipe says of rows."""
    named = np.zeros(target.rows, bool)
    named[list(target.ids.values())] = True
    own = [_own(target, base, speaker) for speaker in speakers]
    asked = {}
    for token, said in tokens.items():
        asked[target.ids[token]] = (*_asked(token, said, speakers), said.get("force", False))
    return Numbers(target, speakers, own, named, asked)


def _own(target: Target, base: Speaker, speaker: Speaker) -> np.ndarray:
    """Return the row that a model has for each row of the target; -1 where it has none.

    Where all tokens that it has in common with the base have the base's numbers, a row that it
    calls nothing is of the token that has this number there.
    """
    found = np.full(target.rows, -1, np.int64)
    ids = dict(speaker.ids)
    if all(base.ids.get(token, number) == number for token, number in ids.items()):
        taken = set(ids.values())
        for token, number in base.ids.items():
            if token not in ids and number < speaker.rows and number not in taken:
                ids[token] = number
    for token, number in target.ids.items():
        found[number] = ids.get(token, -1)
    return found


def _asked(token: str, said: Mapping[str, Any], speakers: Sequence[Speaker]) -> tuple[int, int]:
    if said.get("zero"):
        return -1, -1
    where, model = f"recipe: tokens: {token!r}", said["model"]
    for number, speaker in enumerate(speakers):
        if model in (speaker.label, speaker.model.repo):
            row = said.get("id", speaker.ids.get(said.get("token", token), -1))
            if not 0 <= row < speaker.rows:
                what = f"id {row}" if "id" in said else repr(said.get("token", token))
                raise RecipeError(f"{where}: {model} has no row for {what}.")
            return number, row
    raise RecipeError(
        f"{where}: {model} is not one of the models. Give one of"
        f" {', '.join(speaker.label for speaker in speakers)}."
    )


def is_as_it_is(it: Numbers) -> bool:
    """Return whether all rows lie where they are wanted, so that nothing needs a view."""
    everywhere = np.arange(it.target.rows)
    return not it.asked and all(
        speaker.rows == it.target.rows and np.array_equal(own[it.named], everywhere[it.named])
        for speaker, own in zip(it.speakers, it.own, strict=True)
    )


def made(
    it: Numbers,
    weights: Mapping[int, float],
    tables: Mapping[str, int],
    aliases: Mapping[str, str],
) -> list[Checkpoint]:
    """Return the base, the models and what follows them under the target's vocabulary.

    The first of the speakers is the base. weights: by number those of the models that are merged;
    what else there is is a target of steps. tables: the base's, with their axes. aliases: of tables
    that a model has and the base lacks, the one of the base that they are as.
    """
    owners = [k for k, weight in weights.items() if weight] or list(weights)
    owners += [k for k in range(1, len(it.speakers)) if k not in owners]
    views = [dict(speaker.model.tensors) for speaker in it.speakers]
    base = it.speakers[0].model
    for name, axis in tables.items():
        found = [_partner(base, speaker.model, name) for speaker in it.speakers]
        found = [t if t and _fits(t, base.tensors[name], axis) else None for t in found]
        view = _of_base(it, owners, weights, found, axis)
        views[0][name] = view
        for k in range(1, len(found)):
            mine = found[k]
            if mine is not None:
                views[k][name] = _of_model(it, k, k in weights, mine, view, found, axis)
    for k in range(1, len(it.speakers)):
        for name, other in aliases.items():
            mine = it.speakers[k].model.tensors.get(name)
            if mine is not None and name not in tables and other in views[0]:
                parts = [mine] * len(it.speakers)
                view = views[0][other]
                if _fits(mine, base.tensors[other], tables[other]):
                    how = k in weights
                    views[k][name] = _of_model(it, k, how, mine, view, parts, tables[other])
    return [replace(s.model, tensors=v) for s, v in zip(it.speakers, views, strict=True)]


def _partner(base: Checkpoint, model: Checkpoint, name: str) -> Tensor | None:
    """Return a model's table of that name, or what it ties to it."""
    if name in model.tensors:
        return model.tensors[name]
    other = base.untied.get(name) or tied.ties(model).get(name)
    return tied.apart(model, name, model.tensors[other]) if other in model.tensors else None


def _fits(tensor: Tensor, other: Tensor, axis: int) -> bool:
    mine, its = tensor.shape, other.shape
    return len(mine) == len(its) and mine[:axis] + mine[axis + 1 :] == its[:axis] + its[axis + 1 :]


def _of_base(
    it: Numbers,
    owners: Sequence[int],
    weights: Mapping[int, float],
    found: Sequence[Tensor | None],
    axis: int,
) -> Tensor:
    """Return a table of the base with the rows that others have and it lacks."""
    mine = found[0]
    assert mine is not None
    part = np.where(it.own[0] >= 0, 0, MEAN)
    row = np.maximum(it.own[0], 0)
    several: dict[int, list[tuple[int, int]]] = {}
    merged = [k for k in owners if k in weights]
    for i in np.flatnonzero(it.named & (it.own[0] < 0)).tolist():
        have = [
            (k, int(it.own[k][i])) for k in owners if found[k] is not None and it.own[k][i] >= 0
        ]
        have = [pair for pair in have if pair[0] in merged] or have[:1]
        if len(have) > 1:
            part[i], several[i] = SEVERAL, have
        elif have:
            part[i], row[i] = have[0]
    _pad(it, found, part, row)
    for i, (k, number, force) in it.asked.items():
        if force or it.own[0][i] < 0:
            _ask(found, part, row, several, i, k, number)
    table = Rows(part, row, several)
    return gather.gathered(mine, table, _parts(found, mine), mine.dtype, axis)


def _of_model(
    it: Numbers,
    k: int,
    merged: bool,
    mine: Tensor,
    base: Tensor,
    found: Sequence[Tensor | None],
    axis: int,
) -> Tensor:
    """Return a table of a model, which is the base's where the model has no row of its own.

    merged: whether it has a task vector; else it is what the steps are added to.
    """
    own, last = it.own[k], len(found)
    has = own >= 0
    if merged:
        both = it.own[0] >= 0
        both[[i for i, (_, _, force) in it.asked.items() if not force]] = True
        has = has & both
    has[[i for i, (_, _, force) in it.asked.items() if force]] = False
    part = np.where(has, k, last)
    row = np.where(has, own, np.arange(it.target.rows))
    if not merged:
        _pad(it, [t if n == k else None for n, t in enumerate(found)], part, row, at=k)
    for i, (other, number, force) in it.asked.items():
        if not force and not has[i] and it.own[0][i] >= 0:  # as the model has it that lends it
            has[i] = True
            _ask(found, part, row, {}, i, other, number)
    absent = ~has if merged else None
    dtype = mine.dtype
    if merged and not has.all():  # the base's rows are to be as they are there
        dtype = _wider(dtype, base.dtype)
    parts = [*_parts(found, mine), base]
    parts[k] = mine
    return gather.gathered(mine, Rows(part, row, absent=absent), parts, dtype, axis)


def _pad(
    it: Numbers,
    found: Sequence[Tensor | None],
    part: np.ndarray,
    row: np.ndarray,
    at: int | None = None,
) -> None:
    """Take rows without a token from the model whose vocabulary it is, as far as it has any.

    at: do so for this model alone.
    """
    owner = it.speakers.index(it.target.owner)
    if found[owner] is None or at not in (None, owner):
        return
    free = np.flatnonzero(~it.named[: it.target.owner.rows])
    part[free], row[free] = owner, free


def _ask(
    found: Sequence[Tensor | None],
    part: np.ndarray,
    row: np.ndarray,
    several: dict[int, Any],
    i: int,
    k: int,
    number: int,
) -> None:
    """Take a row as a recipe says."""
    several.pop(i, None)
    if k < 0:
        part[i] = ZERO
    elif found[k] is not None:
        part[i], row[i] = k, number


def _parts(found: Sequence[Tensor | None], instead: Tensor) -> list[Tensor]:
    """Return tables, with another one where there is none, of which no row is taken."""
    return [instead if tensor is None else tensor for tensor in found]


def _wider(a: str, b: str) -> str:
    """Return a dtype that holds the values of both."""
    if a == b:
        return a
    return "F64" if "F64" in (a, b) else "F32"


def statistics(it: Numbers, k: int, file: Checkpoint, tables: Mapping[str, int]) -> Checkpoint:
    """Return a model's statistics of its tables under the target's vocabulary, 0 where it lacks a
    token or the base does."""
    tensors = dict(file.tensors)
    for name, axis in tables.items():
        array, table = tensors.get(name), it.speakers[k].model.tensors.get(name)
        if array is None or table is None or array.shape != table.shape:
            continue
        has = (it.own[k] >= 0) & (it.own[0] >= 0)
        rows = Rows(np.where(has, 0, ZERO), np.where(has, it.own[k], 0))
        tensors[name] = gather.gathered(array, rows, [array], array.dtype, axis)
    return replace(file, tensors=tensors)


def check_quantised(views: Sequence[Tensor], label: str) -> None:
    """Raise MismatchError if tables are quantised again, whose rows are moved."""
    if any(tensor.layout for tensor in views):
        raise MismatchError(
            f"{label}: has a quantised embedding whose rows are matched by token, which dtype same"
            " cannot write. Leave dtype out to write bfloat16."
        )
