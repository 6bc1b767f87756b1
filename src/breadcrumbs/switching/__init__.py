"""Tasks in and out of a live Torch module, in place.

import breadcrumbs

tasks = breadcrumbs.switch(module, "tasks.safetensors")  # module holds the base
tasks.put("cats")
with tasks.using("dogs"):
    module(batch)
tasks.put(None)  # the base again, bit for bit
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from breadcrumbs import merging
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.compression.archive import Archive, open_archive
from breadcrumbs.compression.extracting import open_base
from breadcrumbs.compression.rebuilding import rebuilt
from breadcrumbs.errors import MismatchError, RecipeError, listing, suggestion
from breadcrumbs.evaluate.devices import require_torch
from breadcrumbs.plan import equal
from breadcrumbs.schedule import Task, run_tasks
from breadcrumbs.switching.places import Place, Read, kernels, masked
from breadcrumbs.switching.turns import Turns

if TYPE_CHECKING:
    import torch


def switch(
    module: torch.nn.Module,
    tasks: str | os.PathLike[str],
    *,
    base: merging.Source | None = None,
    ignore: str | Sequence[str] = (),
) -> Switch:
    """Return a `Switch` of the tasks that a file holds, for a module that holds the base's weights.

    tasks: an archive that `breadcrumbs compress` wrote. base: what the module was loaded from: a
        path, hub id or mapping of arrays; unless told, where it was when the file was written.
    ignore: globs of tensors that the module has no place for.

    The module may be of another float dtype than the base, and on any device. MismatchError where
    the module does not hold the base, bit for bit in its dtype, where the base is not the one of
    the file, or where the module has no place for what a task changes.
    """
    require_torch()
    return Switch(module, tasks, base, merging.globs(ignore))


class Switch:
    """Puts tasks into a module, in place, and takes them out again. A context manager.

    tasks: their names. Threads may call all of it at once. A thread that reads the module while
    another one puts a task in may see weights of both: let each reader use `using`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        path: str | os.PathLike[str],
        base: merging.Source | None,
        ignore: Sequence[str],
    ):
        self.module = module
        self._stack = ExitStack()
        self._turns = Turns(self._change)
        with self._stack:
            archive = self._stack.enter_context(open_archive(path))
            archive.verify()
            self.tasks = archive.tasks
            self._label = archive.path
            self._places = self._of_archive(archive, base, ignore)
            self._stack = self._stack.pop_all()

    @property
    def task(self) -> str | None:
        """The task that is in when nobody uses another one, None for the base."""
        return self._turns.rest

    def put(self, task: str | None) -> None:
        """Put a task in, or the base for None, as soon as nobody is using the module."""
        self._turns.put(self._known(task))

    @contextmanager
    def using(self, task: str | None) -> Iterator[torch.nn.Module]:
        """A context in which the module is that of a task, whatever other threads do.

        Threads that use the same task go together, others wait for their turn, in order. What was
        in before comes back at the end.
        """
        with self._turns.using(self._known(task)):
            yield self.module

    def close(self) -> None:
        """Put the base back, and close the files."""
        self.put(None)
        self._stack.close()

    def __enter__(self) -> Switch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _known(self, task: str | None) -> str | None:
        if task is not None and task not in self.tasks:
            raise RecipeError(
                f"{self._label}: has no task {task!r}.{suggestion(str(task), self.tasks)} There"
                f" are {', '.join(self.tasks)}."
            )
        return task

    def _change(self, task: str | None) -> None:
        """Make all weights those of a task; also of what an interrupted change left."""
        import torch

        def change(place: Place) -> list[Task]:
            place.to(task)
            return []

        run_tasks([partial(change, place) for place in self._places], torch.get_num_threads())
        for weight in self._weights:
            if not weight.is_inference():
                torch.autograd.graph.increment_version(weight)

    def _of_archive(
        self, archive: Archive, base: merging.Source | None, ignore: Sequence[str]
    ) -> list[Place]:
        under = open_base(archive, base)
        if under is not base:
            self._stack.callback(under.close)
        archive.check_base(under)
        models = {task: rebuilt(archive, under, task) for task in archive.tasks}
        who: dict[str, list[int]] = {}
        for number in range(len(archive.tasks)):
            for name in archive.names(number):
                who.setdefault(name, []).append(number)
        slots = _slots(self.module, under, archive, list(who), ignore)
        self._weights = [weights for _, weights in slots]
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
        if any(not isinstance(place, Read) for place in places):
            kernels()  # compiled here rather than in the first switch
        return places


def _slots(
    module: torch.nn.Module,
    base: Checkpoint,
    archive: Archive,
    names: Sequence[str],
    ignore: Sequence[str],
) -> list[tuple[str, Any]]:
    """Return the module's weights of those names, tied ones once; MismatchError if it lacks one."""
    from breadcrumbs.evaluate.weights import Slots

    slots = Slots(module, base, whole=False)
    found: dict[int, tuple[str, Any]] = {}
    lost, untied = [], []
    for name in names:
        slot = slots.names.get(name)
        if slot is None:
            lost += [] if any(fnmatch.fnmatchcase(name, glob) for glob in ignore) else [name]
            continue
        first, _ = found.setdefault(id(slot.tensor), (name, slot.tensor))
        if not _alike(archive, first, name):
            untied.append(f"{first} = {name}")
    if lost:
        raise MismatchError(
            f"the module has no place for {listing(lost)}, which tasks change. Give the module that"
            f" {base.label} is loaded into, or `ignore` for what it does not use."
        )
    if untied:
        raise MismatchError(
            f"{archive.path}: has different changes for what is one weight in the module:"
            f" {listing(untied)}. Compress fine-tunings in which it is one weight, too."
        )
    return list(found.values())


def _alike(archive: Archive, first: str, second: str) -> bool:
    """Return whether all tasks change two tensors alike."""
    pairs = [(archive.values.get(first), archive.values.get(second))]
    for number in range(len(archive.tasks)):
        for arrays in (archive.masks, archive.lefts, archive.rights, archive.wholes):
            pairs.append((arrays.get((number, first)), arrays.get((number, second))))
    return all(equal(a, b) if a and b else a is b for a, b in pairs)
