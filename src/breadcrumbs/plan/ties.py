"""Tensors of several names that are one: tied copies.

Old checkpoints store an embedding two to four times (T5's `shared`, BART's, the heads of BERT), and
what transformers writes stores it once. Copies are found by their bytes in the base, and are one
tensor only if they are equal in each model that stores more than one of them, in whatever dtype.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from breadcrumbs.checkpoint import composite, configs, tied
from breadcrumbs.checkpoint.adapters.nominal import Absent
from breadcrumbs.checkpoint.names import renamed
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor, items
from breadcrumbs.checkpoint.tied import equal
from breadcrumbs.errors import MismatchError, RecipeError, listing
from breadcrumbs.plan.recipe import Recipe

_STEP = 1 << 18
#: Bytes at the start and the end of a tensor that are looked at first.
_SAMPLE = 512
_EMBEDDING = re.compile(
    r"(^|\.)(shared|embed_tokens|word_embeddings?|tok_embeddings|embed_in|wte|token_embedding"
    r"|tokens_embed|embeddings?|transformer\.w)(\.weight)?$"
)
_HEAD = re.compile(
    r"(^|\.)(lm_head(\.decoder|\.out_proj)?|embed_out|output_projection|output|predictions\.decoder"
    r"|decoder|proj_out|vocab_projector|generator_lm_head|pred_layer\.proj|lm_loss|head)(\.weight)?$"
)
#: Biases that masked language models store twice: by the end of the one, that of the other.
_BIASES = (
    ("predictions.bias", "predictions.decoder.bias"),
    ("lm_head.bias", "lm_head.decoder.bias"),
)


def untied(recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint]) -> Checkpoint:
    """Return the base, with a tensor of its own for each head that a model has untied.

    Asked for with `untie`; MismatchError where a model has untied one and it is not.
    """
    if not configs.ties(configs.read(base.folder)):
        return base  # then what it lacks is no copy
    pairs: dict[str, str] = {}
    embeddings = [name for name in base.tensors if _EMBEDDING.search(name)]
    for model in models:
        for name, tensor in model.tensors.items():
            if name in base.tensors or not tensor.is_weight or _allowed(recipe.extra, name):
                continue
            for other in embeddings:
                mine = model.tensors.get(other)
                if mine is None or mine.shape != tensor.shape or not are_known((name, other)):
                    continue
                if not same(tensor, mine):
                    _check_wanted(recipe, base, model, (name, other))
                    pairs[name] = other
    return _apart(base, pairs)


def _apart(base: Checkpoint, pairs: Mapping[str, str]) -> Checkpoint:
    """Return the base with tensors apart that were tied, and with all that its config ties.

    What the config says then is of all of them. A head is called as a model has it that unties it.
    """
    if not pairs:
        return base
    tables = {other for name, other in pairs.items() if _HEAD.search(name)}
    found = {
        name: other
        for name, other in tied.ties(base).items()
        if name in pairs or other not in tables or not _HEAD.search(name)
    }
    return tied.untied(base, {**found, **pairs})


def under_its_name(base: Checkpoint, model: Checkpoint) -> tuple[Checkpoint, str]:
    """Return the model with its copy of a tied tensor called as the base's, and a line; or nothing.

    Where the base stores the embeddings alone and the model the head alone, or another copy of
    those of T5: no model is without embeddings, so what it has is these, unless it has some, or its
    config says that its head is no copy.
    """
    free = [t for t in base.tensors.values() if t.name not in model.tensors and _may_be(t)]
    if not free:
        return model, ""
    mine = [tensor for tensor in model.tensors.values() if _may_be(tensor)]
    loose = [tensor for tensor in mine if tensor.name not in base.tensors]
    if configs.read(model.folder).get("tie_word_embeddings") is False:
        loose = [tensor for tensor in loose if _EMBEDDING.search(tensor.name)]
    new = {}
    for shape in {tensor.shape for tensor in free if len(tensor.shape) > 1}:
        theirs = [tensor for tensor in free if tensor.shape == shape]
        copies = [tensor for tensor in loose if tensor.shape == shape]
        others = [t for t in mine if t.shape == shape and _EMBEDDING.search(t.name)]
        known = any(_EMBEDDING.search(tensor.name) for tensor in (*theirs, *copies))
        if len(theirs) > 1 or not copies or not known or {*others} - {*copies}:
            continue
        if all(same(copies[0], copy) for copy in copies):
            new[copies[0].name] = theirs[0].name
    if not new:
        return model, ""
    said = " and ".join(f"{own!r} is its {name!r}" for own, name in new.items())
    return renamed(model, new), f"{model.label}: {said}, of which it stores no other copy"


def _may_be(tensor: Tensor) -> bool:
    """Return whether a tensor may be embeddings or a copy of them, by its name."""
    known = _EMBEDDING.search(tensor.name) or _HEAD.search(tensor.name)
    return bool(known) and tensor.is_weight


def found(
    recipe: Recipe, base: Checkpoint, models: Sequence[Checkpoint], warnings: list[str]
) -> tuple[Checkpoint, dict[str, str]]:
    """Return the base, and for each tied copy in it the name of the tensor that it is one with.

    Where a model has untied what the base stores as equal copies, these are merged apart, and the
    base says that they are untied. MismatchError where that is not asked for.
    """
    first: dict[str, str] = {}
    ties = configs.ties(configs.read(base.folder))
    for names in groups(base):
        parts = _said_alike(recipe, names)
        if len(parts) > 1 and are_known(names):
            base = _apart(base, {part[0]: names[0] for part in parts[1:]})
        for model in models:
            more = [half for part in parts for half in _split(model, part)]
            if len(more) > len(parts) and are_known(names):
                apart = [part[0] for part in more if part[0] != names[0]]
                if ties and apart[0] not in base.untied:
                    _check_wanted(recipe, base, model, (apart[0], names[0]))
                    base = _apart(base, {name: names[0] for name in apart})
                warnings.append(
                    f"{model.label}: {listing(apart)} and {names[0]!r} differ, which are one tensor"
                    f" in {base.label}; they are merged apart"
                )
            parts = more
        for part in parts:
            first |= {name: part[0] for name in part[1:]}
    return base, first


def _split(model: Checkpoint, names: Sequence[str]) -> list[list[str]]:
    """Return names of tied copies by which of them are equal in a model.

    What it lacks is with the first of them.
    """
    parts: list[list[str]] = []
    for name in names:
        mine = model.tensors.get(name)
        if mine is None:
            continue
        for part in parts:
            if same(mine, model.tensors[part[0]]):
                part.append(name)
                break
        else:
            parts.append([name])
    stored = {name for part in parts for name in part}
    first = [n for n in names if n not in stored or (parts and n in parts[0])]
    return [first, *parts[1:]]


def _check_wanted(
    recipe: Recipe, base: Checkpoint, model: Checkpoint, names: tuple[str, str]
) -> None:
    """Raise MismatchError unless a recipe unties what a model has untied, by itself or a task."""
    if names[0] in model.untied:
        return
    if tied.head_scale(base, "lm_head.weight") != 1:
        kind = configs.read(base.folder)["model_type"]
        raise MismatchError(
            f"{model.label}: has untied {names[0]!r} from {names[1]!r}, and {kind} scales its"
            f" logits where they are tied, so no merged model would be right. Give `exclude:"
            f" {names[0]}` with `extra: ignore`, or a base that is untied."
        )
    if recipe.untie:
        return
    leave = "" if names[0] in base.tensors else f"; --extra {names[0]!r} leaves it out"
    raise MismatchError(
        f"{model.label}: has untied {names[0]!r} from {names[1]!r} (they differ), which"
        f" {base.label} ties. `breadcrumbs merge --untie` (`untie: true`) writes them apart, with"
        " tie_word_embeddings false in the config; task files, archives and stores need a base that"
        f" is untied{leave}."
    )


def _said_alike(recipe: Recipe, names: Sequence[str]) -> list[list[str]]:
    """Return names of tied copies by what a recipe says of them.

    RecipeError where that is not the same of an embedding and its head, unless they are to be
    untied; other tensors that happen to be equal are merged apart then.
    """
    parts: dict[tuple[bool, ...], list[str]] = {}
    for name in names:
        said = tuple(matches(globs, name) for globs in _globs(recipe).values())
        parts.setdefault(said, []).append(name)
    if len(parts) > 1 and are_known(names) and not recipe.untie:
        (one, first), (other, second) = list(parts.items())[:2]
        both = zip(_globs(recipe).items(), one, other, strict=True)
        key, globs, mine = next(
            (key, g, first if a else second) for (key, g), a, b in both if a != b
        )
        glob = next(glob for glob in globs if matches([glob], mine[0]))
        raise RecipeError(
            f"recipe: {key}: {glob!r} matches one of {first[0]!r} and {second[0]!r}, which are one"
            " tensor in all models. Name both, or give `untie: true` (--untie)."
        )
    return list(parts.values())


def _globs(recipe: Recipe) -> dict[str, list[str]]:
    """Return all that a recipe says of some tensors by globs, each override by itself."""
    found = {"exclude": list(recipe.exclude), "only": list(recipe.only)}
    return found | {f"overrides[{i}]": [o.tensors] for i, o in enumerate(recipe.overrides)}


def matches(globs: Sequence[str], name: str) -> bool:
    """Return whether one of the globs matches a name, or is that name, brackets and all."""
    return any(name == glob or fnmatch.fnmatchcase(name, glob) for glob in globs)


def _allowed(globs: str | Sequence[str], name: str) -> bool:
    return not isinstance(globs, str) and matches(globs, name)


def groups(base: Checkpoint) -> list[tuple[str, ...]]:
    """Return the names of each set of tied copies of a checkpoint, what it is called first.

    Equal matrices that are not constant are tied, and the biases that are known to be.
    """
    alike: dict[tuple, list[str]] = {}
    if any(isinstance(tensor.source, Absent) for tensor in base.tensors.values()):
        return []  # a base of names, of which nothing can be told
    for name, tensor in base.tensors.items():
        if len(tensor.shape) > 1 and tensor.is_weight:
            component = composite.component(base, name)
            alike.setdefault((tensor.dtype, tensor.shape, component), []).append(name)
    found = []
    for names in alike.values():
        if len(names) > 1:
            found += _equal_groups(base, names)
    for end, other in _BIASES:
        for name in [name for name in base.tensors if name.endswith(end)]:
            twin = name.removesuffix(end) + other
            pair = base.tensors[name], base.tensors.get(twin)
            if pair[1] is not None and equal(pair[0], pair[1]):
                found.append((name, twin))
    return found


def _equal_groups(base: Checkpoint, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the sets of equal tensors among some of one dtype and shape."""
    starts = {name: _sample(base.tensors[name], 0) for name in names}
    times = Counter(starts.values())
    alike: dict[tuple[bytes, bytes], list[str]] = {}
    for name, start in starts.items():
        if times[start] > 1:  # of what begins as nothing else the end is not read
            tensor = base.tensors[name]
            end = _sample(tensor, max(0, tensor.nbytes - _SAMPLE))
            alike.setdefault((start, end), []).append(name)
    for near in alike.values():
        while len(near) > 1:
            first, *others = near
            same = {name for name in others if equal(base.tensors[first], base.tensors[name])}
            if same and varies(base.tensors[first]):
                yield tuple(sorted([first, *same], key=_order))
            near = [name for name in others if name not in same]


def _sample(tensor: Tensor, start: int) -> bytes:
    sample = bytearray(min(_SAMPLE, tensor.nbytes))
    tensor.source.read_into(start, memoryview(sample))
    return bytes(sample)


def _order(name: str) -> tuple[bool, bool, int, str]:
    """Return what puts the name that a group goes by first, whatever else a file stores."""
    embedding = _EMBEDDING.search(name)
    return embedding is None, "shared" not in name, len(name), name


def are_known(names: Iterable[str]) -> bool:
    """Return whether the names are those of an embedding and its head or copies, or of biases."""
    rest = [name for name in names if not _EMBEDDING.search(name)]
    return all(_HEAD.search(name) or name.endswith(_KNOWN_BIASES) for name in rest)


_KNOWN_BIASES = tuple(end for pair in _BIASES for end in pair)


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same numbers, those of the wider dtype rounded."""
    if a.dtype == b.dtype:
        return equal(a, b)
    if a.shape != b.shape:
        return False
    if a.dtype in _WHOLE and b.dtype in _WHOLE:
        return _same_whole(a, b)
    if not (a.is_float and b.is_float):
        return False
    narrow, wide = sorted((DTYPES[a.dtype], DTYPES[b.dtype]), key=lambda dtype: dtype.itemsize)
    for start in range(0, a.size, _STEP):
        parts = []
        for tensor in (a, b):
            part = np.empty(min(_STEP, a.size - start), DTYPES[tensor.dtype])
            tensor.read_into(start, part)
            with np.errstate(over="ignore"):
                parts.append(part.astype(wide).astype(narrow).view(f"u{narrow.itemsize}"))
        if not np.array_equal(*parts):
            return False
    return True


_WHOLE = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


def _same_whole(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors of integers or booleans hold the same numbers."""
    for start in range(0, a.size, _STEP):
        parts = []
        for tensor in (a, b):
            part = np.empty(min(_STEP, a.size - start), DTYPES[tensor.dtype])
            tensor.read_into(start, part)
            parts.append(part)
        if not np.array_equal(*parts):
            return False
    return True


def varies(tensor: Tensor) -> bool:
    """Return whether the entries differ, reading until the first that does."""
    first = None
    for start in range(0, tensor.size, _STEP):
        number = items(tensor.dtype, min(_STEP, tensor.size - start))
        part = np.empty(number, DTYPES[tensor.dtype])
        tensor.read_into(start, part)
        values = part.view(np.uint8).reshape(part.size, -1)
        first = values[0].copy() if first is None else first
        if (values != first).any():
            return True
    return False


def twin(checkpoint: Checkpoint, name: str, among: Iterable[str]) -> str | None:
    """Return the one name ``among`` some under which a checkpoint stores the same tensor, or None.

    Only matrices that are not constant count, and the biases that are known: norms and biases are
    often equal without being tied. Of what is known, one may be stored in another dtype.
    """
    tensor = checkpoint.tensors[name]
    if len(tensor.shape) < 2:
        return _twin_bias(checkpoint, name, among)
    candidates = [checkpoint.tensors.get(other) for other in among if other != name]
    found = [
        other.name
        for other in candidates
        if other is not None
        and other.shape == tensor.shape
        and (equal if other.dtype == tensor.dtype or not are_known((name, other.name)) else same)(
            tensor, other
        )
    ]
    if len(found) != 1 or not varies(tensor):
        return None
    return found[0]


def _twin_bias(checkpoint: Checkpoint, name: str, among: Iterable[str]) -> str | None:
    """Return the other name of a bias that masked language models store twice, if both agree."""
    others = {name.removesuffix(a) + b for a, b in _BOTH_WAYS if f".{name}".endswith(f".{a}")}
    found = [checkpoint.tensors.get(other) for other in among if other in others]
    equals = [o.name for o in found if o is not None and same(checkpoint.tensors[name], o)]
    return equals[0] if equals else None


_BOTH_WAYS = (*_BIASES, *((other, one) for one, other in _BIASES))
