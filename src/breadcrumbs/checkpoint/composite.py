"""A folder whose weights lie in several folders, as one checkpoint.

A diffusers pipeline, or a sentence-transformers model with a Dense layer: a tensor is called
FOLDER/NAME, those of the folder itself NAME. So a part is left out of a merge with
``exclude: vae/*``, and what works on names and tensors needs to know nothing of folders.
`Checkpoint.layout` says where each part lies; `breadcrumbs.checkpoint.parts` what the parts are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from breadcrumbs.checkpoint import folder as one
from breadcrumbs.checkpoint import kept, layout, parts, quantised
from breadcrumbs.checkpoint.files import same_bytes
from breadcrumbs.checkpoint.layout import Layout, Place
from breadcrumbs.checkpoint.parts import Local
from breadcrumbs.checkpoint.sparse import Sparse
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor, shown
from breadcrumbs.errors import CheckpointError, MismatchError, listing


def open_folder(path: Path, label: str) -> Checkpoint:
    """Return the checkpoint in a folder, of its parts if the weights lie in several folders.

    label: what the user called it.
    """
    tree = Local(path)
    found = parts.with_weights(tree) if os.access(path, os.R_OK | os.X_OK) else []
    if not found:
        return _opened(path, label)
    with ExitStack() as opened:
        members = {}
        if parts.has_weights(tree.files("")) and not parts.is_pipeline(tree):
            members[""] = opened.enter_context(_opened(path, label))
        for part in found:
            members[part] = opened.enter_context(_opened(path / part, os.path.join(label, part)))
        made = _joined(path, members, label, parts.is_pipeline(tree))
        opened.pop_all()
    return made


def _opened(path: Path, label: str) -> Checkpoint:
    return kept.view(quantised.view(replace(one.open_folder(path), label=label), path))


def _joined(path: Path, members: dict[str, Checkpoint], label: str, apart: bool) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    for part, member in members.items():
        for name, tensor in member.tensors.items():
            full = f"{part}/{name}" if part else name
            if not part and name.startswith(tuple(f"{other}/" for other in members if other)):
                raise CheckpointError(
                    f"{path}: tensor {shown(name)} is called like one of the part"
                    f" {name.partition('/')[0]!r}. Rename the tensor, or the folder."
                )
            tensors[full] = tensor if full == name else replace(tensor, name=full)

    def close() -> None:
        for member in members.values():
            member.close()

    places = tuple(
        layout.place(part, [file.name for file in member.files]) for part, member in members.items()
    )
    files = tuple(file for member in members.values() for file in member.files)
    companions = (
        replace(tensor, name=f"{part}/{tensor.name}" if part else tensor.name)
        for part, member in members.items()
        for tensor in member.companions
    )
    return Checkpoint(
        label,
        tensors,
        files,
        folder=path,
        close=close,
        layout=Layout(_inner_first(places), apart),
        notes=_notes(members),
        companions=tuple(companions),
    )


def _notes(members: Mapping[str, Checkpoint]) -> tuple[str, ...]:
    """Return what is said of the parts, a line for all of which it is the same."""
    found: dict[str, list[str]] = {}
    for part, member in members.items():
        for note in member.notes:
            found.setdefault(note, []).append(part or "the folder itself")
    return tuple(f"{', '.join(parts)}: {note}" for note, parts in found.items())


def _inner_first(places: Sequence[Place]) -> tuple[Place, ...]:
    """Return places with a folder in another one before that one, as names are split."""
    return tuple(sorted(places, key=lambda place: -place.folder.count("/")))


def component(checkpoint: Checkpoint, name: str) -> str:
    """Return the folder of the component of a pipeline that a tensor is of; "" elsewhere."""
    return checkpoint.layout.component(name) if checkpoint.layout else ""


def of(checkpoint: Checkpoint) -> Layout:
    """Return how the files of an output are called and where they lie that is made of this."""
    if checkpoint.layout is not None:
        return checkpoint.layout
    names = [path.name for path in checkpoint.files]
    return Layout((layout.place("", names, checkpoint.folder is not None),))


def check_parts(
    base: Checkpoint,
    models: Iterable[Checkpoint],
    missing: str | Sequence[str] = "error",
    extra: str | Sequence[str] = "error",
) -> None:
    """Raise MismatchError where the models do not consist of the parts of the base.

    missing, extra: of the recipe; unless they are ``error``, parts may lack, and be more.
    """
    for model in models:
        if model.cut is None and model.files and model.layout != base.layout:
            _check(base, model, missing, extra)


def _check(
    base: Checkpoint,
    model: Checkpoint,
    missing: str | Sequence[str],
    extra: str | Sequence[str],
) -> None:
    mine = set(base.layout.folders) if base.layout else set()
    theirs = set(model.layout.folders) if model.layout else set()
    if mine and not theirs and len(own := _own(base, model)) == 1:
        raise MismatchError(
            f"{model.label}: is one part ({own[0]}), and {base.label} is a model of several. Merge"
            f" that part alone: `breadcrumbs merge {base.label}/{own[0]} {model.label} -o"
            f" {own[0]}`."
        )
    if theirs and not mine and len(own := _own(model, base)) == 1:
        raise MismatchError(
            f"{base.label}: is one part ({own[0]}), and {model.label} is a model of several. Give"
            f" {model.label}/{own[0]}."
        )
    if missing == "error" and (lost := sorted(mine - theirs)):
        raise MismatchError(
            f"{model.label}: has no weights in {listing(lost)}, where {base.label} has a part of"
            " the model. Give --missing base to keep the base's, or a model with all parts."
        )
    if extra == "error" and (more := sorted(theirs - mine)):
        raise MismatchError(
            f"{model.label}: has weights in {listing(more)}, where {base.label} has none. Give"
            " --extra ignore to go on without them."
        )


def same_parts(base: Checkpoint, models: Sequence[Checkpoint]) -> list[str]:
    """Return the folders of a model of several parts that no model changed.

    All have the same files there, byte for byte, or are task files that keep nothing there.
    """
    folders = base.layout.folders if base.layout and models else ()
    return [part for part in folders if all(_is_same_part(base, model, part) for model in models)]


def _is_same_part(base: Checkpoint, model: Checkpoint, part: str) -> bool:
    start = f"{part}/"
    if any(name.startswith(start) for name in base.changed | model.changed):
        return False
    if model.cut is not None:
        return not any(
            isinstance(tensor.source, Sparse)
            for name, tensor in model.tensors.items()
            if name.startswith(start)
        )
    mine = _files(base, part)
    return bool(mine) and _equal(mine, _files(model, part))


def _files(model: Checkpoint, part: str) -> dict[str, Path]:
    """Return the weight files of a part by name; none for arrays in memory."""
    if model.folder is None:
        return {}
    folder = model.folder / part
    return {path.name: path for path in model.files if path.parent == folder}


def _equal(one: dict[str, Path], other: dict[str, Path]) -> bool:
    return one.keys() == other.keys() and all(same_bytes(one[name], other[name]) for name in one)


def _own(several: Checkpoint, single: Checkpoint) -> list[str]:
    """Return the parts of a model that a checkpoint may be one of, by its names and shapes."""
    found = []
    for part in several.layout.folders if several.layout else ():
        mine = {name: t for name, t in several.tensors.items() if name.startswith(f"{part}/")}
        same = all(
            name[len(part) + 1 :] in single.tensors
            and single.tensors[name[len(part) + 1 :]].shape == tensor.shape
            for name, tensor in mine.items()
        )
        if same:
            found.append(part)
    return found
