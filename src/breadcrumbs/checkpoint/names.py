"""The same tensors under other names: one model's names for another's, found or refused.

Programs save one model under different names: with the prefix of a wrapper (``module.`` of
DistributedDataParallel, ``_orig_mod.`` of torch.compile), of the class around it (``transformer.``,
``bert.``), or without. `matched` finds such a prefix, `places` where the modules of an adapter are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from breadcrumbs.checkpoint.stack import LAYER
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.ways import Fit, Way, kind, tails, ways, weighed
from breadcrumbs.errors import MismatchError

Shape = tuple[int, ...]
#: What wrappers of single layers put between the parts of a name.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def matched(base: Checkpoint, model: Checkpoint) -> tuple[Checkpoint, str]:
    """Return the model under the base's names, and a line that says what was done, or nothing.

    One prefix may differ: the model's names have it and the base's lack it, or the reverse, or both
    have one of their own; all of them, or those of a part (beside a head). What the base lacks
    stays. Wrappers of single layers count for nothing. MismatchError where two prefixes fit
    equally well.
    """
    if model.tensors.keys() <= base.tensors.keys():
        return model, ""
    words = _wrappers(base, model)
    if words:
        return _matched_plain(base, model, words)
    fit = _prefix(base, model)
    if fit is None:
        return model, ""
    return renamed(model, _all(base, model, fit)), f"{model.label}: {_said(fit.way)}"


def _wrappers(base: Checkpoint, model: Checkpoint) -> list[str]:
    """Return the wrappers around single layers in names of either, which the other has not.

    FSDP, activation checkpointing and compiled blocks put them in the middle of names. None where
    two tensors have one name without them.
    """
    loose = [
        n for n in (*model.tensors, *base.tensors) if not (n in model.tensors and n in base.tensors)
    ]
    wrapped = [name for name in loose if _plain(name) != _bare(name)]
    if not wrapped or any(len({*map(_plain, c.tensors)}) < len(c.tensors) for c in (base, model)):
        return []
    return sorted({word for name in wrapped for word in name.split(".") if word in _WRAPPERS})


def _matched_plain(base: Checkpoint, model: Checkpoint, words: list[str]) -> tuple[Checkpoint, str]:
    """Return what `matched` does of names without wrappers, under the base's names."""
    theirs = {_plain(name): name for name in base.tensors}
    bare = renamed(base, {name: plain for plain, name in theirs.items()})
    found, note = matched(bare, renamed(model, {name: _plain(name) for name in model.tensors}))
    said = " and ".join(repr(f"{word}.") for word in words)
    note = note or f"{model.label}: names"
    return renamed(found, theirs), f"{note}, compared without {said}"


def _plain(name: str) -> str:
    """Return a name without the wrappers in it."""
    if not any(word in name for word in _WRAPPERS):
        return name
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _bare(name: str) -> str:
    """Return a name without the wrappers that it begins with, which are a prefix like others."""
    while name.startswith(tuple(f"{word}." for word in _WRAPPERS)):
        name = name.partition(".")[2]
    return name


def renamed(model: Checkpoint, new: Mapping[str, str]) -> Checkpoint:
    """Return the model with other names; those that are not in ``new`` stay."""
    tensors, called = {}, {}
    for name, tensor in model.tensors.items():
        mine = new.get(name, name)
        tensors[mine] = tensor if mine == name else replace(tensor, name=mine)
        first = model.called.get(name, name)
        if first != mine:
            called[mine] = first
    inside = model.inserted if model.adapter else None  # whose names are the former ones
    return replace(model, tensors=tensors, called=called, inserted=inside)


def _prefix(base: Checkpoint, model: Checkpoint) -> Fit | None:
    """Return the one prefix that differs, if there is one."""
    loose = [name for name in model.tensors if name not in base.tensors]
    free = dict.fromkeys(name for name in base.tensors if name not in model.tensors)

    def fits(name: str, other: str) -> bool:
        return model.tensors[name].shape == base.tensors[other].shape

    same = len(model.tensors) - len(loose)
    found = [weighed(way, loose, free, fits) for way in ways(loose, free)]
    found = [
        fit
        for fit in found
        if _is_likely(fit, same, len(loose), len(free))
        and not _collides(fit.way, loose, model, base)
    ]
    if not found:
        return None
    found.sort(key=_rank, reverse=True)
    best = [fit for fit in found if _rank(fit) == _rank(found[0])]
    said = [fit for fit in best if fit.way.agrees]
    if len(said) == 1:
        best = said
    if len(best) == 1:
        # Names that say nothing of images are of a tower for images only if they are all of it.
        fit = best[0]
        whole = fit.whole and len(fit.pairs) == len(loose)
        one = not (unwrapped(fit.way.gone) and unwrapped(fit.way.added))
        tower = one and (whole or _is_the_body(fit, base, model))
        return fit if tower or not fit.way.crosses else None
    if any(meet(best[0], other) for other in best[1:]):
        raise _undecided(base, model, best)
    return None


def unwrapped(prefix: str) -> str:
    """Return a name or prefix without the wrappers of whole models that it begins with."""
    while prefix.startswith(tuple(f"{word}." for word in ("module", *_WRAPPERS))):
        prefix = prefix.partition(".")[2]
    return prefix


def _is_the_body(fit: Fit, base: Checkpoint, model: Checkpoint) -> bool:
    """Return whether the layers and embeddings under a prefix are those of the other model.

    As in a ViT with a head, and one with a pooler instead. What lies beside the prefix may not be
    called alike, as a tower for words would be.
    """
    gone, added = fit.way.gone, fit.way.added
    mine = bool(unwrapped(gone))
    prefix, inside, other = (gone, model, base) if mine else (added, base, model)
    under = [name for name in inside.tensors if name.startswith(prefix)]
    met = fit.pairs.keys() | set(fit.pairs.values()) | (model.tensors.keys() & base.tensors.keys())
    body = (name for name in (*under, *other.tensors) if LAYER.search(name) or "embed" in name)
    if fit.misfits or not met.issuperset(body):
        return False
    ends = {name[len(gone) :] for name in fit.pairs}
    beside = (name for name in inside.tensors if not name.startswith(prefix))
    return ends.isdisjoint(end for name in beside for end in tails(name))


def _collides(way: Way, loose: list[str], model: Checkpoint, base: Checkpoint) -> bool:
    """Return whether a new name is already that of another tensor, and the base's."""
    return any(
        new in model.tensors and new in base.tensors
        for new in map(way.of, loose)
        if new is not None
    )


def _rank(fit: Fit) -> tuple[int, ...]:
    return len(fit.pairs), -fit.misfits, -fit.lost - fit.uncovered


def _is_likely(fit: Fit, same: int, loose: int, free: int) -> bool:
    """Return whether a prefix alone tells two models apart.

    same, loose, free: how many names are in both, in the model alone, in the base alone. Either all
    is explained, or most of it: of a few names that are alike, some are those of different heads.
    """
    number, way = len(fit.pairs), fit.way
    if not number or fit.misfits >= number or (way.replaces and not fit.numbered):
        return False
    if way.contradicts:
        return False
    if number == loose == free:
        return True
    return number > same and 2 * number >= min(loose, free)


def meet(first: Fit, second: Fit) -> bool:
    """Return whether two prefixes lead from or to the same names."""
    return bool(
        first.pairs.keys() & second.pairs.keys()
        or set(first.pairs.values()) & set(second.pairs.values())
    )


def _undecided(base: Checkpoint, model: Checkpoint, found: list[Fit]) -> MismatchError:
    mine = any(fit.way.added != found[0].way.added for fit in found)
    prefixes = " and ".join(repr(fit.way.added if mine else fit.way.gone) for fit in found)
    of = base.label if mine else model.label
    rules = " or ".join(f'--rename "{fit.way.gone}*={fit.way.added}*"' for fit in found)
    return MismatchError(
        f"{model.label}: its names fit those of {base.label} in more than one way: under {prefixes}"
        f" of {of} are tensors of the same names and shapes. Say which is meant: {rules}."
    )


def _all(base: Checkpoint, model: Checkpoint, fit: Fit) -> dict[str, str]:
    """Return the new names: of what fits, and of what else is in the same parts of the model.

    A prefix that none comes in place of goes from all names.
    """
    new, start = dict(fit.pairs), len(fit.way.gone)
    parts = {name[start:].partition(".")[0] for name in fit.pairs}
    taken = set(new.values()) | (model.tensors.keys() - new.keys())
    for name in model.tensors:
        other = None if name in new or name in base.tensors else fit.way.of(name)
        if not other or other in taken:
            continue
        if not fit.way.added or name[start:].partition(".")[0] in parts:
            new[name] = other
            taken.add(other)
    # What lies beside the part, such as a head, is in the same wrapper of the whole model.
    wrapper = fit.way.gone.removesuffix(unwrapped(fit.way.gone))
    for name in model.tensors if wrapper else ():
        other = name.removeprefix(wrapper)
        free = name not in new and name not in base.tensors and other not in taken
        if free and name.startswith(wrapper) and other in base.tensors:
            new[name] = other
            taken.add(other)
    return new


def _said(way: Way) -> str:
    if not way.added:
        return f"names without their prefix {way.gone!r}"
    if not way.gone:
        return f"names with the base's prefix {way.added!r}"
    return f"names with the prefix {way.added!r} in place of {way.gone!r}"


def places(known: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[dict[str, str]]:
    """Return where the weights that an adapter changes are in a base: wanted names -> known names.

    known: names and shapes of the base. wanted: those of the adapter, as if they were the base's;
    axes may be in another order. None in the list: it has no place there. One: that is it, for all
    names that have a place. Several: nothing decides between them.

    Names that the base has stay. The others move by their prefixes, part by part (the language
    model, then the tower of images), each to where most of them fit; then what the prefixes say
    that they are for (``language_model``, ``vision_tower``) decides, then the number of layers.
    Names that say nothing of images move into a part for images only if that is all there is.
    """
    found = {name: name for name in wanted if name in known and _fit(wanted[name], known[name])}
    rest = [name for name in wanted if name not in found]
    while rest:
        taken = set(found.values())
        free = dict.fromkeys(name for name in known if name not in taken)
        best = _best_places(known, wanted, rest, free)
        if not best:
            break
        if any(meet(best[0], other) for other in best[1:]):
            return [found | fit.pairs for fit in best]
        found |= best[0].pairs
        rest = [name for name in rest if name not in best[0].pairs]
    return [{name: found[name] for name in wanted if name in found}] if found else []


def _best_places(
    known: Mapping[str, Shape], wanted: Mapping[str, Shape], names: list[str], free: dict[str, None]
) -> list[Fit]:
    """Return the best ways for a part of the names, several if they are equally good."""

    def fits(name: str, other: str) -> bool:
        return _fit(wanted[name], known[other])

    found = [weighed(way, names, free, fits) for way in ways(names, free)]
    found = [fit for fit in found if fit.pairs and not fit.misfits and _may_be(fit, names)]
    ranks = {fit.way: (len(fit.pairs), _word(fit.way), -_layers_left(fit, free)) for fit in found}
    best = max(ranks.values(), default=None)
    return [fit for fit in found if ranks[fit.way] == best]


def _fit(first: Shape, second: Shape) -> bool:
    return sorted(first) == sorted(second)


def _may_be(fit: Fit, names: list[str]) -> bool:
    """Return whether a place may be meant: no other kind of part, and with all of the layers."""
    alike = {LAYER.sub("#", name) for name in fit.pairs}
    if any(name not in fit.pairs and LAYER.sub("#", name) in alike for name in names):
        return False
    if fit.way.contradicts:
        return False
    if fit.way.replaces:
        return fit.numbered and not fit.way.crosses
    return not fit.way.crosses or len(fit.pairs) == len(names)


def _word(way: Way) -> int:
    """Return how well two prefixes agree on what they are for."""
    if way.crosses:
        return 0
    return 1 if kind(way.gone) == "text" != kind(way.added) else 2


def _layers_left(fit: Fit, free: dict[str, None]) -> int:
    """Return how many names there are under the prefix like those that fit, in other layers."""
    alike = {LAYER.sub("#", name) for name in fit.pairs.values()}
    used = set(fit.pairs.values())
    return sum(LAYER.sub("#", name) in alike for name in free if name not in used)
