"""Which tensor of a model belongs to which of the base, and what is to be done where none does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from breadcrumbs.checkpoint import configs, kinds, tied
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, RecipeError, counted, listing, suggestion
from breadcrumbs.plan.judgement import defaults
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.plan.ties import are_known, matches, twin

_TIE = "tie_word_embeddings"
#: Globs that an error advises at most.
_ADVISED = 3


@dataclass
class Remarks:
    """What there is to say of a plan. warnings: what may be wrong. notes: what is right, but should
    be known."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def partners(
    recipe: Recipe,
    base: Checkpoint,
    model: Checkpoint,
    first: Mapping[str, str],
    remarks: Remarks,
) -> dict[str, Tensor]:
    """Return the model's tensors under the base's names; of tied copies the one that it stores.

    first: for each tied copy in the base, the name of its tensor.
    """
    found = {name: tensor for name, tensor in model.tensors.items() if name in base.tensors}
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in found.items():
        by_shape.setdefault(tensor.shape, []).append(name)
    _check_extra(recipe, base, model, by_shape, remarks)
    for name, other in first.items():
        if name in found:
            found.setdefault(other, found[name])
    missing = []
    ties: Mapping[str, str] | None = None
    for name, tensor in base.tensors.items():
        if name in found or name in first or not tensor.is_weight or copied(recipe, tensor):
            continue
        other = base.untied.get(name) or _known_twin(base, name, by_shape.get(tensor.shape, ()))
        if other in found:
            found[name] = found[other]
            if name in base.untied:
                found[name] = tied.apart(base, name, found[other])
            continue
        ties = _ties(model) if ties is None else ties
        if ties.get(name) in found:
            found[name] = tied.apart(model, name, found[ties[name]])
            remarks.notes.append(
                f"{model.label}: ties {name!r} to {ties[name]!r}, so that is what it has there"
            )
        else:
            missing.append(name)
    _check_missing(recipe, base, model, missing, remarks)
    return found


def _ties(model: Checkpoint) -> Mapping[str, str]:
    """Return what a model's config says to be one tensor; nothing where it does not say so."""
    config = configs.read(model.folder)
    inner = config.get("text_config")
    parts = (config, inner) if isinstance(inner, dict) else (config,)
    said = [part.get(_TIE, defaults.value(_TIE, part)) for part in parts]
    return tied.ties(model) if True in said else {}


def _known_twin(base: Checkpoint, name: str, among: Iterable[str]) -> str | None:
    """Return the name of what is tied to a tensor by what both are called, if they are equal.

    Others that are equal in the base, such as layers that were copied, are not one where some model
    tells them apart; where none does, they are among the copies that were found.
    """
    other = twin(base, name, among)
    return other if other is not None and are_known((name, other)) else None


#: A matrix of a LoRA in the state dict of a whole model.
_OF_LORA = re.compile(r"\.lora_(?:embedding_)?[AB](?:\.|$)")


def _check_extra(
    recipe: Recipe,
    base: Checkpoint,
    model: Checkpoint,
    by_shape: Mapping[tuple[int, ...], Sequence[str]],
    remarks: Remarks,
) -> None:
    """Raise MismatchError for weights that the base lacks, unless they are tied or to be left."""
    extra, others = [], []
    for name, tensor in model.tensors.items():
        if name in base.tensors:
            continue
        if tensor.kind == kinds.MARKER:
            continue
        if not tensor.is_weight:
            others.append(name)
        elif twin(model, name, by_shape.get(tensor.shape, ())) is None:
            extra.append(name)
    if others:
        what = _kinds(model, others)
        remarks.notes.append(
            f"{model.label}: left out {what} that the base lacks: {listing(others)}"
        )
    wrong = refused(recipe.extra, "ignore", extra)
    adapted = next((name for name in wrong if _OF_LORA.search(name)), None)
    if adapted:
        raise MismatchError(
            f"{model.label}: holds a LoRA that was not put into its weights ({adapted!r}). Save"
            " PEFT's `model.merge_and_unload()`, or the adapter alone with its `save_pretrained`."
        )
    if wrong:
        from breadcrumbs.checkpoint import renames

        near = renames.suggestion(base, model) or suggestion(wrong[0], base.tensors)
        raise MismatchError(
            f"{model.label}: has {counted(len(wrong), 'tensor')} that {base.label} lacks:"
            f" {listing(wrong)}.{near} Is it a fine-tuning of this base?"
            f" {_advice('--extra', wrong)} leaves them out (`extra` in a recipe; --extra ignore:"
            " all)."
        )
    if extra:
        remarks.warnings.append(f"{model.label}: left out what the base lacks: {listing(extra)}")


def _check_missing(
    recipe: Recipe, base: Checkpoint, model: Checkpoint, missing: list[str], remarks: Remarks
) -> None:
    wrong = refused(recipe.missing, "base", missing)
    if wrong:
        from breadcrumbs.checkpoint import renames

        raise MismatchError(
            f"{model.label}: lacks {counted(len(wrong), 'tensor')} of {base.label}:"
            f" {listing(wrong)}.{renames.suggestion(base, model)} Is it a fine-tuning of this base?"
            f" {_advice('--missing', wrong)} counts them as"
            " unchanged (`missing` in a recipe; --missing base: all); `exclude` copies them from"
            " the base."
        )
    if missing:
        remarks.warnings.append(
            f"{model.label}: counted as unchanged what it lacks: {listing(missing)}"
        )


def refused(allowed: str | Sequence[str], word: str, names: Iterable[str]) -> list[str]:
    """Return the names that what a recipe says of `missing` or `extra` does not allow.

    word: what it says to allow all.
    """
    if allowed == word:
        return []
    globs = () if isinstance(allowed, str) else allowed
    return [name for name in names if not matches(globs, name)]


def check_globs(recipe: Recipe, models: Sequence[Checkpoint], base: Checkpoint) -> None:
    """Raise RecipeError for a glob of `missing` or `extra` that matches no tensor."""
    names = [name for model in models for name in model.tensors]
    names += [name for model in models if model.inserted for name in model.inserted.called]
    for key, word, allowed, among in (
        ("missing", "base", recipe.missing, base.tensors),
        ("extra", "ignore", recipe.extra, names),
    ):
        for glob in () if isinstance(allowed, str) else allowed:
            if not any(matches([glob], name) for name in among):
                whose = base.label if key == "missing" else "the models"
                raise RecipeError(
                    f"recipe: {key}: {glob!r} matches no tensor of {whose}, and is none of error,"
                    f" {word}.{suggestion(glob, among)} `breadcrumbs inspect` lists the names."
                )


def _advice(option: str, names: Sequence[str]) -> str:
    """Return an option with globs of just these names, as it may be pasted."""
    return " ".join(f'{option} "{glob}"' for glob in _globs(names))


def _globs(names: Sequence[str]) -> list[str]:
    """Return few globs that match the names: the names, their beginnings, or their ends."""
    if len(names) <= _ADVISED:
        return list(names)
    ends = {name.rpartition(".")[2] for name in names}
    if len(ends) <= _ADVISED and not ends & {"weight", "bias", "w", "b"}:
        return sorted(f"*.{end}" if end not in names else end for end in ends)
    starts = {name.partition(".")[0] for name in names}
    if len(starts) <= _ADVISED:
        return sorted(f"{start}.*" if start not in names else start for start in starts)
    return ["GLOB"]


def _kinds(model: Checkpoint, names: Iterable[str]) -> str:
    """Return what some tensors that are not weights are, in words."""
    found = sorted({model.tensors[name].kind for name in names})
    return " and ".join(_PLURALS.get(kind, "tensors") for kind in found)


_PLURALS = {
    kinds.BUFFER: "buffers",
    kinds.STATISTIC: "statistics",
    kinds.COUNTER: "counters",
    kinds.MARKER: "markers",
    kinds.OTHER: "tensors that are not weights",
}


def copied(recipe: Recipe, tensor: Tensor) -> str:
    """Return why a tensor is copied; empty if it is merged."""
    if matches(recipe.exclude, tensor.name):
        return "excluded"
    if recipe.only and not matches(recipe.only, tensor.name):
        return "not among `only`"
    return COPIED.get(tensor.kind, "")


#: Why tensors that are not weights are copied.
COPIED = {
    kinds.STATISTIC: "statistic",
    kinds.COUNTER: "not a weight",
    kinds.BUFFER: "buffer",
    kinds.MARKER: "marker",
    kinds.OTHER: "not a weight",
}
