"""What a switch is made of: the places of an archive's tasks, or of task files, in a module."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from breadcrumbs import checkpoint
from breadcrumbs.archives import archive as archives
from breadcrumbs.archives.archive import Archive, open_archive
from breadcrumbs.archives.extracting import open_base
from breadcrumbs.archives.rebuilding import rebuilt
from breadcrumbs.checkpoint import live
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, RecipeError, listing
from breadcrumbs.merging import opening
from breadcrumbs.modules.switching.places import Place, Read, masked, scattered
from breadcrumbs.plan import equal
from breadcrumbs.taskfile import view
from breadcrumbs.taskfile.reader import TaskFile

if TYPE_CHECKING:
    import torch

#: One file of tasks, or task files, by the names of their tasks if those are not to be their own.
Tasks = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """label: what messages call the tasks. weights: of the module, that tasks change."""

    label: str
    tasks: tuple[str, ...]
    places: list[Place]
    weights: list[torch.Tensor]


def opened(
    module: torch.nn.Module,
    tasks: Tasks | None,
    base: opening.Source | None,
    ignore: Sequence[str],
    stack: ExitStack,
    behind: Sequence[str] = (),
) -> Opened:
    """Return the places of tasks. stack: closes what stays open. behind: tasks that change none."""
    if not behind:
        return _opened(module, tasks, base, ignore, stack)
    if tasks is None:
        found = _of_nothing(module, base, stack)
    else:
        found = _opened(module, tasks, base, ignore, stack)
    both = [task for task in behind if task in found.tasks]
    if both:
        raise RecipeError(
            f"{found.label}: has {listing(both)}, which something was learned for behind the"
            " module's own weights. Leave the file of one of them out."
        )
    return replace(found, tasks=(*found.tasks, *behind))


def _of_nothing(module: torch.nn.Module, base: Any, stack: ExitStack) -> Opened:
    """Return no places in a module that holds the base; MismatchError where it does not."""
    from breadcrumbs.modules.slots import Slots

    if not live.is_module(module):
        raise RecipeError("switch: no module is given. Give a Torch module.")
    under = checkpoint.open(base)
    if under is not base:
        stack.callback(under.close)
    Slots(module, under, whole=False)
    return Opened(under.label, (), [], [])


def _opened(
    module: torch.nn.Module,
    tasks: Tasks | None,
    base: opening.Source | None,
    ignore: Sequence[str],
    stack: ExitStack,
) -> Opened:
    single = isinstance(tasks, str | os.PathLike)
    if not live.is_module(module) or tasks is None:
        what = "tasks" if live.is_module(module) else "module"
        raise RecipeError(
            f"switch: no {what} is given. Give a Torch module, and an archive or task files."
        )
    if single and archives.KEY in read_header(tasks).metadata:
        return _of_archive(module, tasks, base, ignore, stack)
    paths = list(tasks.values()) if isinstance(tasks, Mapping) else [tasks] if single else [*tasks]
    files = [stack.enter_context(TaskFile.open(path)) for path in paths]
    names = list(tasks) if isinstance(tasks, Mapping) else [file.name for file in files]
    if not files:
        raise RecipeError("switch: no tasks are given. Give an archive, or task files.")
    for number, name in enumerate(names):
        if name in names[:number]:
            raise RecipeError(
                f"{files[number].label}: is another task {name!r}. Name them: {{name: path, ...}}."
            )
    return _of_files(module, dict(zip(names, files, strict=True)), base, ignore, stack)


def _of_archive(
    module: torch.nn.Module,
    path: str | os.PathLike[str],
    base: opening.Source | None,
    ignore: Sequence[str],
    stack: ExitStack,
) -> Opened:
    archive = stack.enter_context(open_archive(path))
    archive.verify()
    under = open_base(archive.path, archive.base, base)
    if under is not base:
        stack.callback(under.close)
    archive.check_base(under)
    models = {task: rebuilt(archive, under, task) for task in archive.tasks}
    who: dict[str, list[int]] = {}
    for number in range(len(archive.tasks)):
        for name in archive.names(number):
            who.setdefault(name, []).append(number)

    def alike(first: str, second: str) -> bool:
        return _alike_in(archive, first, second)

    slots = _slots(module, under, list(who), ignore, archive.path, alike)
    places: list[Place] = []
    for name, weights in slots:
        mine = {archive.tasks[number]: number for number in who[name]}
        wholes = any((number, name) in archive.wholes for number in who[name])
        if archive.method == "tall" and not wholes and weights.is_contiguous():
            packed = {task: archive.bits(number, name) for task, number in mine.items()}
            places += masked(weights, archive.values[name], packed)
        else:
            found = {task: models[task].tensors[name] for task in mine}
            places.append(Read(weights, under.tensors[name], found))
    return Opened(archive.path, archive.tasks, places, [weights for _, weights in slots])


def _of_files(
    module: torch.nn.Module,
    files: Mapping[str, TaskFile],
    base: opening.Source | None,
    ignore: Sequence[str],
    stack: ExitStack,
) -> Opened:
    first = next(iter(files.values()))
    label = first.label if len(files) == 1 else f"{first.label} and {len(files) - 1} more"
    under = open_base(first.label, first.base, base)
    if under is not base:
        stack.callback(under.close)
    views = view.on_base(under, [file.source for file in files.values()])
    models = dict(zip(files, views, strict=True))
    held = {task: {*file.tensors, *file.about.tied} for task, file in files.items()}
    names = dict.fromkeys(name for mine in held.values() for name in sorted(mine))

    def alike(first: str, second: str) -> bool:
        return all(equal(m.tensors[first], m.tensors[second]) for m in models.values())

    slots = _slots(module, under, list(names), ignore, label, alike)
    places: list[Place] = []
    for name, weights in slots:
        found: dict[str, Tensor] = {
            task: models[task].tensors[name] for task, mine in held.items() if name in mine
        }
        if weights.is_contiguous():
            places.append(scattered(weights, found))
        else:
            places.append(Read(weights, under.tensors[name], found))
    return Opened(label, tuple(files), places, [weights for _, weights in slots])


def _slots(
    module: torch.nn.Module,
    base: Checkpoint,
    names: Sequence[str],
    ignore: Sequence[str],
    label: str,
    alike: Callable[[str, str], bool],
) -> list[tuple[str, Any]]:
    """Return the module's weights of those names, tied ones once; MismatchError if it lacks one.

    label: of the tasks. alike: (two names) -> whether the tasks change both in the same way.
    """
    from breadcrumbs.modules.slots import Slots

    slots = Slots(module, base, whole=False)
    found: dict[int, tuple[str, Any]] = {}
    lost, untied = [], []
    for name in names:
        slot = slots.names.get(name)
        if slot is None:
            lost += [] if any(fnmatch.fnmatchcase(name, glob) for glob in ignore) else [name]
            continue
        first, _ = found.setdefault(id(slot.tensor), (name, slot.tensor))
        if first != name and not alike(first, name):
            untied.append(f"{first} = {name}")
    if lost:
        raise MismatchError(
            f"the module has no place for {listing(lost)}, which tasks change. Give the module that"
            f" {base.label} is loaded into, or `ignore` for what it does not use."
        )
    if untied:
        raise MismatchError(
            f"{label}: has different changes for what is one weight in the module:"
            f" {listing(untied)}. Give fine-tunings in which it is one weight, too."
        )
    return list(found.values())


def _alike_in(archive: Archive, first: str, second: str) -> bool:
    """Return whether all tasks change two tensors alike."""
    pairs = [(archive.values.get(first), archive.values.get(second))]
    for number in range(len(archive.tasks)):
        for arrays in (archive.masks, archive.lefts, archive.rights, archive.wholes):
            pairs.append((arrays.get((number, first)), arrays.get((number, second))))
    return all(equal(a, b) if a and b else a is b for a, b in pairs)
