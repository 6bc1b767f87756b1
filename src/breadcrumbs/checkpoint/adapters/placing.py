"""Where an adapter's tensors are in a base, and what it changes there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from breadcrumbs.checkpoint import composite, configs, renames, renaming, tied
from breadcrumbs.checkpoint import names as naming
from breadcrumbs.checkpoint.adapters import experts, lora_files, matrices
from breadcrumbs.checkpoint.adapters.adapter import ADVICE, Adapter
from breadcrumbs.checkpoint.adapters.changes import Changes
from breadcrumbs.checkpoint.heads import is_head
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.tables import first, is_embedding, is_table
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor, shown
from breadcrumbs.checkpoint.ways import Way, kind
from breadcrumbs.errors import MismatchError, RecipeError, counted, listing

#: Settings of PEFT for tasks that are not about images.
_OF_TEXT = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


def changes(adapter: Adapter, base: Checkpoint, rename: Sequence[str] = ()) -> Changes:
    """Return what an adapter changes of a base; MismatchError if it does not fit.

    rename: ``OLD=NEW``, names of the adapter as the base has them; a ``*`` in both is what is kept.
    """
    ties = tied.ties(base)
    view = tied.untied(base, ties)
    stacks = experts.named(adapter, view)
    names, notes = _placed(adapter, view, rename, stacks)
    made = Changes(view, notes=notes)
    made.products |= matrices.factors(adapter, names, view, made.magnitudes)
    made.products |= matrices.others(adapter, names, view)
    made.products |= experts.factors(adapter, names, view, stacks)
    for theirs, tensor in adapter.whole.items():
        if theirs in names:
            _take(made, adapter, theirs, names[theirs], tensor, ties)
        else:
            made.lacking.append(theirs)
    for theirs, (tensor, indices) in adapter.rows.items():
        if theirs in names:
            _take_rows(made, adapter, theirs, names[theirs], tensor, indices)
        else:
            made.lacking.append(theirs)
    made.lacking += [n for n in (*adapter.products, *adapter.others) if n not in names]
    return _apart(adapter, made, base, ties)


def check_whole(
    made: Changes, adapter: Adapter, refused: Callable[[list[str]], list[str]] = list
) -> None:
    """Raise MismatchError where the base lacks what an adapter changes.

    refused: which of such names count; the others are left out.
    """
    wrong = refused(made.lacking)
    if wrong:
        raise MismatchError(
            f"{adapter.label}: holds {listing(wrong, 3)}, which {made.base.label} lacks."
            " Give --extra ignore to leave that out."
        )


def _placed(
    adapter: Adapter, base: Checkpoint, rename: Sequence[str], stacks: experts.Stacks
) -> tuple[dict[str, str], list[str]]:
    """Return what the base calls an adapter's tensors, without those that it lacks, and notes.

    MismatchError unless all products have one place, or the base is one component of several.
    """
    folders = composite.of(base).folders
    if folders and adapter.kind != "PEFT" and not rename:
        return _placed_apart(adapter, base, folders, stacks)
    wanted = {name: matrices.shape(adapter, name) for name in adapter.products}
    wanted |= {name: matrices.shape_of_other(adapter, base, name) for name in adapter.others}
    wanted |= {name: tensor.shape for name, tensor in adapter.whole.items()}
    wanted |= {name: _like(base, name, tensor) for name, (tensor, _) in adapter.rows.items()}
    wanted |= stacks.wanted
    if adapter.kind == "kohya":
        found = lora_files.dotted(adapter, base)
        _check_found(adapter, base, found)
        return found, []
    rules = [renaming.parse(text, "--rename") for text in rename]
    new = {name: renaming.new_name(rules, name) or name for name in wanted}
    for rule in rules:
        if all(rule.of(name) is None for name in wanted):
            raise RecipeError(f"--rename {rule}: {adapter.label} has no such name.")
    known = {name: tensor.shape for name, tensor in base.tensors.items()}
    given = {new[name]: shape for name, shape in wanted.items()}
    options = naming.places(known, given) or _by_prefix(known, given)
    if len(options) > 1:
        options = _of_kind(adapter, options) or options
    if len(options) > 1:
        raise _undecided(adapter, base, given, options)
    found = options[0] if options else {}
    found |= {n: n for n in given if n not in found and n in known}  # whose shapes are looked at
    result = {name: found[new[name]] for name in wanted if new[name] in found}
    _check_found(adapter, base, result)
    moved = next(((a, b) for a, b in result.items() if a != b), None)
    notes = [f"{moved[0]!r} is {moved[1]!r} of {base.label}, and so on"] if moved else []
    return result, notes


def _placed_apart(
    adapter: Adapter, base: Checkpoint, folders: Sequence[str], stacks: experts.Stacks
) -> tuple[dict[str, str], list[str]]:
    """Return the same of a pipeline, of each of its components that the adapter has weights for."""
    found: dict[str, str] = {}
    notes: list[str] = []
    for folder in folders:
        mine = lora_files.of_component(adapter, folder, folders)
        under = f"{folder}/"
        inside = {
            name.removeprefix(under): tensor
            for name, tensor in base.tensors.items()
            if name.startswith(under)
        }
        if mine:
            part = replace(base, tensors=inside, layout=None, label=f"{base.label}/{folder}")
            alone = replace(adapter, products={name: adapter.products[name] for name in mine})
            names, more = _placed(alone, part, (), stacks)
            found |= {name: under + new for name, new in names.items()}
            notes += more
    _check_found(adapter, base, found)
    return found, notes


def _by_prefix(
    known: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> list[dict[str, str]]:
    """Return where all names are under one other prefix, that no layers tell."""
    first = next(iter(wanted), "")
    tails = [first[i + 1 :] for i, letter in enumerate(first) if letter == "."]
    for tail in tails[:-1]:
        gone, found = first[: len(first) - len(tail)], []
        for name in known:
            added = name[: len(name) - len(tail)]
            if Way(gone, added).contradicts:  # another layer, or a tower
                continue
            new = {n: added + n.removeprefix(gone) for n in wanted if n.startswith(gone)}
            if f".{name}".endswith(f".{tail}") and new.keys() == wanted.keys():
                found += [new] if all(n in known for n in new.values()) else []
        if found:
            return found
    return []


def _of_kind(adapter: Adapter, options: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the places for text alone, where an adapter says that it is for that."""
    if adapter.config.get("task_type") not in _OF_TEXT:
        return []
    images = ("images", "sound")
    return [o for o in options if not any(kind(name) in images for name in o.values())]


def _undecided(
    adapter: Adapter, base: Checkpoint, wanted: Mapping[str, object], options: list[dict[str, str]]
) -> MismatchError:
    name = next(n for n in wanted if len({option.get(n) for option in options}) > 1)
    fits = [option[name] for option in options if name in option]
    rules = []
    for fit in fits:
        starts = [0, *(i + 1 for i, letter in enumerate(name) if letter == ".")]
        tail = next(i for i in starts if f".{fit}".endswith(f".{name[i:]}"))
        rules.append(f'--rename "{name[:tail]}*={fit[: len(fit) - len(name) + tail]}*"')
    return MismatchError(
        f"{adapter.label}: {shown(name)} may be {listing(fits)} of {base.label}. Say which:"
        f" {' or '.join(rules)}."
    )


def _check_found(adapter: Adapter, base: Checkpoint, found: Mapping[str, str]) -> None:
    """Raise MismatchError for an adapter with no place, or PEFT's with products without one."""
    asked = [*adapter.products, *adapter.others, *adapter.stacks]
    missing = [name for name in (*adapter.products, *adapter.others) if name not in found]
    if found and (not missing or adapter.kind != "PEFT"):
        return
    if adapter.kind != "PEFT":
        raise MismatchError(
            f"{adapter.label}: is a LoRA file of {adapter.kind}, and {base.label} has none of its"
            f" {counted(len(missing), 'module')}: {listing(missing, 3)}. Give the one component of"
            " a pipeline that it was trained on, such as the folder unet, as the base."
        )
    said = f" Is it an adapter of {shown(adapter.trained_on)}?" if adapter.trained_on else ""
    advice = _advice(adapter, base, missing) or "--rename 'OLD*=NEW*'"
    missing = missing or list(adapter.whole) or list(adapter.rows) or asked
    raise MismatchError(
        f"{adapter.label}: changes {listing(missing, 3)}, which {base.label} lacks.{said} If it"
        f" is called otherwise there, say so: {advice}."
    )


def _advice(adapter: Adapter, base: Checkpoint, missing: Sequence[str]) -> str:
    """Return the rules under which all products that have no place have one; empty if in doubt."""
    made = {  # as if they were weights, of which only names and shapes are looked at
        name: Tensor(name, "F32", matrices.shape(adapter, name), adapter.products[name][0].source)
        for name in missing
    }
    rules = renames.rules(base, Checkpoint(adapter.label, made, ()))
    placed = all(any(rule.of(name) in base.tensors for rule in rules) for name in missing)
    return " ".join(f'--rename "{rule}"' for rule in rules) if placed else ""


def _like(base: Checkpoint, name: str, rows: Tensor) -> tuple[int, ...]:
    """Return the shape of the table that rows are of, where the base has one of that name's end."""
    last = ".".join(name.split(".")[-2:])
    for known, tensor in base.tensors.items():
        if f".{known}".endswith(f".{last}") and tensor.shape[1:] == rows.shape[1:]:
            return tensor.shape
    return rows.shape


def _take(
    made: Changes,
    adapter: Adapter,
    theirs: str,
    name: str,
    tensor: Tensor,
    ties: Mapping[str, str],
) -> None:
    """Add a whole tensor, unless it is the base's; MismatchError where it does not fit.

    Tables of more tokens, which PEFT saves whole, are for the plan to look at. A copy of a weight
    that has a product or rows, as those of embeddings have, must be the base's.
    """
    stored = made.base.stored or made.base
    mine = made.base.tensors[name]
    held = stored.tensors.get(name) or stored.tensors[ties[name]]
    alone = theirs not in adapter.products and theirs not in adapter.rows
    rows = mine.shape[:1] != tensor.shape[:1] and mine.shape[1:] == tensor.shape[1:] != ()
    if rows and alone and is_table(name):
        made.whole[name] = replace(tensor, name=name)
        return
    if mine.shape != tensor.shape:
        raise MismatchError(
            f"{adapter.label}: {shown(theirs)} has shape {tensor.shape}, the base's {mine.shape}."
            f" Was the vocabulary resized? {ADVICE}"
        )
    equal = held.is_weight and tensor.is_weight and _equal(held, tensor)
    if not alone:
        if not equal:
            raise MismatchError(
                f"{adapter.label}: the weights that it holds for {shown(theirs)}, besides the"
                f" change, are not those of {made.base.label}. {ADVICE}"
            )
    elif not equal:
        made.whole[name] = replace(tensor, name=name)


def _equal(held: Tensor, tensor: Tensor) -> bool:
    """Return whether a tensor is the base's, in another dtype too."""
    mine, dtype = held.read(), DTYPES[held.dtype]
    return np.array_equal(mine, tensor.read().astype(dtype))


def _take_rows(
    made: Changes, adapter: Adapter, theirs: str, name: str, tensor: Tensor, indices: list[int]
) -> None:
    """Add rows of a table; MismatchError where they do not fit."""
    mine = made.base.tensors[name]
    if len(mine.shape) != 2 or mine.shape[1:] != tensor.shape[1:] or max(indices) >= mine.shape[0]:
        raise MismatchError(
            f"{adapter.label}: has rows {listing(map(str, indices))} of shape {tensor.shape[1:]}"
            f" for {shown(theirs)}, the base's has shape {mine.shape}. Was the vocabulary resized?"
            f" {ADVICE}"
        )
    if name in made.products or name in made.whole:
        raise MismatchError(
            f"{adapter.label}: {shown(theirs)} is changed as a whole and in single rows. {ADVICE}"
        )
    order = np.argsort(indices)
    made.rows[name] = np.asarray(indices)[order], tensor.read()[order]


def _apart(adapter: Adapter, made: Changes, base: Checkpoint, ties: Mapping[str, str]) -> Changes:
    """Return the changes with one tensor where all that is tied changes alike, else with each."""
    groups: dict[str, list[str]] = {}
    for name, other in ties.items():
        groups.setdefault(other, [other]).append(name)
    heads = [name for name in base.tensors if name.endswith(("lm_head.weight", "embed_out.weight"))]
    if base.folder is None and not heads and any(map(is_embedding, made.names)):
        made.notes.append(
            f"{base.label} has no config.json beside it, so its ties are not known: where a head"
            " is tied to the embeddings that change, give the folder of the base"
        )
    lone = next(filter(is_head, made.names), "")
    if lone and not first(base.tensors) and configs.ties(configs.read(base.folder)):
        raise MismatchError(
            f"{base.label}: has {shown(lone)} and no embeddings, which are tied to it and which"
            f" {adapter.label} leaves as they are. Save it again with `save_pretrained` of"
            " transformers, which keeps the embeddings instead."
        )
    kind = tied.unknown_head(base)
    if kind and any(map(is_embedding, made.names)):
        name = next(filter(is_embedding, made.names))
        raise MismatchError(
            f"{adapter.label}: changes {shown(name)}, but how a {shown(kind)} ties its head to that"
            f" is unknown. {ADVICE}"
        )
    untied = []
    for source, group in groups.items():
        if [name for name in group if name in made.rows] == [source]:
            _follow(made, source, group)
        mine = [name for name in group if name in made.names]
        if mine and not (len(mine) == len(group) and _alike(made, group)):
            untied.append(source)
    if untied:
        for name in ties:
            _scale(made, name, tied.head_scale(base, name))
        made.notes.append(said(base, ties))
        return made
    for found in (made.products, made.magnitudes, made.whole, made.rows):
        for name in [name for name in found if name not in base.tensors]:
            del found[name]
    return replace(made, base=base)


def _follow(made: Changes, source: str, group: Sequence[str]) -> None:
    """Give the rows of one tensor to all that are tied to it, as PEFT has it.

    One that has a product too gets both: the rows' differences from the base are of full rank.
    """
    indices, rows = made.rows[source]
    for name in group:
        found = made.products.get(name)
        if found is not None and (name in made.magnitudes or not isinstance(found, Factors)):
            raise MismatchError(
                f"{made.base.label}: {shown(name)} is tied to {shown(source)}, which gets rows,"
                f" and has DoRA of its own. {ADVICE}"
            )
        if isinstance(found, Factors) and found.scale:
            table = made.base.tensors[source]
            differ = rows.astype(np.float64) - table.read()[indices].astype(np.float64)
            left = np.zeros((len(found.left), len(indices)), np.float32)
            left[indices, range(len(indices))] = 1
            made.products[name] = replace(
                found,
                left=np.hstack([found.left.astype(np.float32), left]),
                right=np.vstack([found.right, differ / found.scale]).astype(np.float32),
            )
        elif name not in made.whole:
            made.products.pop(name, None)
            made.rows[name] = indices, rows


def said(base: Checkpoint, untied: Mapping[str, str]) -> str:
    """Return what the user is told of tensors that are apart."""
    one = listing([*dict.fromkeys(untied.values()), *untied])
    return (
        f"{one} are one tensor in {base.label} but are changed separately: a merge writes both, and"
        " tie_word_embeddings: false"
    )


def _alike(made: Changes, group: Sequence[str]) -> bool:
    """Return whether all tensors of a group change in the same way."""
    first, *others = group
    for name in others:
        if first in made.products and name in made.products:
            a, b = made.products[first], made.products[name]
            m, n = made.magnitudes.get(first), made.magnitudes.get(name)
            alike = a.digest == b.digest and a.scale == b.scale and a.shape == b.shape
            alike &= type(a) is type(b) and (m is n is None or (m is not None and m.equals(n)))
        elif first in made.whole and name in made.whole:
            alike = tied.equal(made.whole[first], made.whole[name])
        elif first in made.rows and name in made.rows:
            pairs = zip(made.rows[first], made.rows[name], strict=True)
            alike = all(np.array_equal(a, b) for a, b in pairs)
        else:
            return False
        if not alike:
            return False
    return True


def _scale(made: Changes, name: str, factor: float) -> None:
    """Multiply what changes of a tensor."""
    if factor == 1:
        return
    if name in made.products:
        found = made.products[name]
        made.products[name] = replace(found, scale=found.scale * factor)
    if name in made.magnitudes:
        magnitude = made.magnitudes[name]
        made.magnitudes[name] = replace(magnitude, values=magnitude.values * factor)
    if name in made.whole:
        found = made.whole[name]
        made.whole[name] = replace(found, source=tied.ScaledBytes(found, factor))
    if name in made.rows:
        indices, rows = made.rows[name]
        made.rows[name] = indices, (rows.astype(np.float64) * factor).astype(rows.dtype)
