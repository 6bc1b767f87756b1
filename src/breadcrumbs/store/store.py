"""A store: tasks on one base, kept as small files, with a history and a running sum."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint, kernels, machine
from breadcrumbs.checkpoint import durable, hashing
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.engine.consumers import Consumer, Writing
from breadcrumbs.engine.outputs import Output
from breadcrumbs.errors import (
    BreadcrumbsError,
    CheckpointError,
    MismatchError,
    StoreError,
)
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.merging.report import Report
from breadcrumbs.methods import registry
from breadcrumbs.plan import Plan
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.store import authors, files, licences, settling
from breadcrumbs.store.history import Entry, Revision
from breadcrumbs.store.ledger import Ledger, Settings, Task, already
from breadcrumbs.store.summed import Summed
from breadcrumbs.store.sums import State, Sums, counted
from breadcrumbs.taskfile import reader
from breadcrumbs.taskfile.about import About
from breadcrumbs.taskfile.reader import TaskFile
from breadcrumbs.tasks import importing, packing


@dataclass(frozen=True)
class Verified:
    """What `Store.verify` found. tasks: files read. blocks: of the running sum; repaired: those of
    them that were damaged, and were made again. hash: of the merged model."""

    revision: int
    tasks: int
    blocks: int
    repaired: int
    hash: str


class Store:
    """An open store. Use `create` and `open`."""

    def __init__(self, folder: Path, base: str | None = None):
        self.folder = folder
        self.ledger = Ledger(folder / files.LEDGER)
        self._stack = ExitStack()
        self._stack.callback(self.ledger.close)
        self._lock = threading.Lock()
        self._open: dict[str, TaskFile] = {}
        self._sum: Sums | None = None
        self._states: dict[int, State] = {}
        self._sure = False
        try:
            self.settings = self.ledger.settings()
        except BaseException:
            self.close()
            raise
        if base is not None:
            self.settings = Settings(**{**asdict(self.settings), "base": base})

    @staticmethod
    def create(
        folder: str | os.PathLike[str],
        base: str | os.PathLike[str],
        *,
        method: str = "breadcrumbs",
        **parameters: Any,
    ) -> Store:
        """Make an empty store for fine-tunings of ``base``, in a folder that is new or empty.

        method, parameters: how its tasks are merged; what fine-tunings keep when they are packed is
        what the method's transform keeps.
        """
        path = Path(folder)
        made = Recipe(os.fspath(base), (), method, parameters)
        with files.fresh(path) as making:
            Ledger.create(making / files.LEDGER, settling.settings(os.fspath(base), made))
        return Store(path)

    @staticmethod
    def open(folder: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Store:
        """Open a store. base: where the base is now, if it has moved."""
        return Store(Path(folder), None if base is None else os.fspath(base))

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- what it holds ---

    def entries(self, at: int | None = None) -> list[Entry]:
        """Return the tasks of a revision, the latest unless told."""
        return self.ledger.at(at)

    def log(self) -> list[Revision]:
        """Return all changes that are kept, the first one first."""
        return self.ledger.log()

    def packed_as(self) -> tuple[str, dict[str, Any]]:
        """Return the transform, and its parameters, by which added fine-tunings are cut; ``none``
        if they keep all that changed."""
        return settling.packed_as(registry.get(self.settings.method), self.settings.parameters)

    def diff(self, first: int, second: int) -> list[dict[str, Any]]:
        """Return what differs between two revisions, task by task: before, after (or None)."""
        before, after = (
            {entry.name: {"task": entry.task, "weight": entry.weight} for entry in self.entries(at)}
            for at in (first, second)
        )
        names = dict.fromkeys([*before, *after])
        rows = [{"name": n, "before": before.get(n), "after": after.get(n)} for n in names]
        return [row for row in rows if row["before"] != row["after"]]

    @functools.cached_property
    def base(self) -> Checkpoint:
        """The open base; which one it is `_check_base` tells."""
        try:
            found = checkpoint.open(self.settings.base)
        except CheckpointError as error:
            raise StoreError(
                f"{error} It is the base of {self.folder}: give --base if it has moved, or note its"
                " place once with `breadcrumbs store set DIR --base BASE`."
            ) from None
        self._stack.callback(found.close)
        return found

    def task(self, digest: str) -> TaskFile:
        """Return an open task file of the store."""
        with self._lock:
            if digest not in self._open:
                path = files.place(self.folder, digest)
                if not path.exists():
                    raise StoreError(
                        self.named(f"{path}: is gone. Put it back, or import an export.")
                    )
                self._open[digest] = TaskFile.open(path)
                self._stack.callback(self._open[digest].close)
            return self._open[digest]

    def named(self, text: str) -> str:
        """Return a message with the names of the tasks whose files it speaks of."""
        names = self.ledger.history().tasks()
        folders = "|".join(re.escape(str(path)) for path in (self.folder.absolute(), self.folder))
        file = rf"'?((?:{folders})[\\/]{files.TASKS}[\\/](\w{{64}})\.safetensors)'?"

        def name(found: re.Match[str]) -> str:
            return f"task {shown(names[found[2]])} ({found[1]})" if found[2] in names else found[0]

        return re.sub(file, name, text)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Name tasks in errors that name their files."""
        try:
            yield
        except BreadcrumbsError as error:
            raise type(error)(self.named(str(error))) from None

    # --- changing it ---

    def add(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        replace: bool = False,
        weight: float | None = None,
        author: str | None = None,
        message: str = "",
        task_author: str = "",
        license: str = "",
        exclude: Any = (),
        only: Any = (),
        missing: str | Sequence[str] = "error",
        extra: str | Sequence[str] = "error",
        rename: str | Sequence[str] = (),
        threads: int | None = None,
        strict: bool = False,
        warn: Callable[[Sequence[str]], None] = lambda warnings: None,
        progress: Callable[[int], None] = lambda nbytes: None,
        note: Callable[[str], None] = lambda line: None,
    ) -> Revision | None:
        """Add a task: a task file, or a fine-tuning or adapter, which is packed first.

        replace: whether it takes the place of the task of that name, as removing and adding would;
        None is returned if that changes nothing. weight: 1 unless given, or that of the task that
        is replaced. author, message: of the revision; the author is by default git's user, or the
        login name. task_author, license, exclude, only, missing, extra, rename: of a fine-tuning,
        as for `tasks.pack`. A fine-tuning's licence is that of its model card unless given. strict:
        whether warnings are errors. warn: called with the warnings of a fine-tuning before it is
        packed. note: called with lines on what is right, but should be known.
        """
        settling.check(name, 1.0 if weight is None else weight)
        by = authors.by(self.folder, author, message)
        self._check_base()
        held = any(entry.name == name for entry in self.entries())
        if held and not replace:
            raise StoreError(already(self.folder, name))
        if replace and not held:
            raise StoreError(
                f"{self.folder}: there is no task {name!r} to replace. Leave out --replace to add"
                " it."
            )
        with files.spare(self.folder) as spare:
            path = spare / "task.safetensors"
            with checkpoint.open(source) as opened:
                if reader.is_task(opened):
                    if task_author or license or exclude or only or rename:
                        raise StoreError(
                            f"{opened.label}: is a task file, which states its author, licence and"
                            " tensors itself. Leave these options out."
                        )
                    with open(opened.files[0], "rb") as file:
                        files.copy(file, path)
                else:
                    self._pack(
                        opened,
                        name,
                        path,
                        author=task_author,
                        license=license or licences.of_folder(opened.folder, note),
                        threads=threads,
                        progress=progress,
                        note=note,
                        judge=lambda plan: _judge(plan, strict, warn),
                        recipe={
                            "exclude": opening.globs(exclude),
                            "only": opening.globs(only),
                            "missing": missing,
                            "extra": extra,
                            "rename": opening.globs(rename),
                        },
                    )
            with TaskFile.open(path) as task:
                self._check_task(task, os.fspath(source))
                said = settling.said_of(task)
            digest = files.digest_of(path)
            nbytes = path.stat().st_size
            self._check_fits(name, path)
            made = Task(digest, nbytes, said)
            put = partial(files.keep, self.folder, path, digest)
            if replace:
                revision = self.ledger.replace(name, made, weight, by, put)
            else:
                revision = self.ledger.add(name, made, 1.0 if weight is None else weight, by, put)
        return self._counts(revision, threads)

    def remove(
        self,
        name: str,
        threads: int | None = None,
        *,
        author: str | None = None,
        message: str = "",
    ) -> Revision:
        """Take a task out of the merged model; its file stays, for the revisions that have it."""
        by = authors.by(self.folder, author, message)
        self._check_base()
        revision = self.ledger.remove(name, by)
        self._counts(revision, threads)
        return revision

    def set(
        self,
        name: str,
        weight: float,
        threads: int | None = None,
        *,
        author: str | None = None,
        message: str = "",
    ) -> Revision | None:
        """Give a task another weight; None if it is the one that it has."""
        settling.check(name, weight)
        by = authors.by(self.folder, author, message)
        self._check_base()
        return self._counts(self.ledger.set(name, weight, by), threads)

    def revert(
        self,
        number: int,
        threads: int | None = None,
        *,
        author: str | None = None,
        message: str = "",
    ) -> Revision | None:
        """Make a revision with the tasks of an earlier one; None if they are those of the latest.

        The revisions in between stay.
        """
        by = authors.by(self.folder, author, message)
        self._check_base()
        for entry in self.entries(number):
            self.task(entry.task)  # which is there
        return self._counts(self.ledger.revert(number, by), threads)

    def move_base(self, base: str | os.PathLike[str]) -> None:
        """Note where the base is now; MismatchError if it is another one."""
        where = settling.located(os.fspath(base), self.settings)
        self.ledger.move(where)
        self.settings = dataclasses.replace(self.settings, base=where)

    def forget(self) -> None:
        """Forget what is known of revisions, some of which may be gone."""
        with self._lock:
            self._states.clear()

    def _counts(self, revision: Revision | None, threads: int | None) -> Revision | None:
        """Bring the running sum to a revision that is noted, and so counts whatever happens now."""
        if revision is None:
            return None
        try:
            self.update(threads)
        except BreadcrumbsError as error:
            what = repr(revision.name) if revision.name else f"to {revision.target}"
            raise StoreError(
                f"{error} Revision {revision.number} ({revision.action} {what}) counts; only the"
                " running sum is out of date, and the next command updates it."
            ) from None
        return revision

    def update(self, threads: int | None = None) -> None:
        """Bring the running sum to the latest revision."""
        self._check_base()
        with self._naming():
            self.sums.update(self.ledger.latest, threads or machine.available_cores())

    # --- merging ---

    def merge(
        self,
        output: str | os.PathLike[str],
        *,
        method: str | None = None,
        at: int | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        shard_size: int = 5 * 10**9,
        force: bool = False,
        scratch: bool = False,
        strict: bool = False,
        progress: Callable[[int], None] = lambda nbytes: None,
        **parameters: Any,
    ) -> Report:
        """Write the merged model of a revision, the latest unless told; return the report.

        method, parameters: others than the store's. scratch: from all task files, and not from the
        running sum; the same bits. strict: whether warnings are errors.
        """
        number = self.ledger.latest() if at is None else at
        entries = self.entries(number)
        recipe = self.recipe(entries, method, parameters, dtype)
        consumer: Callable[[Output], Consumer] = Writing
        if not scratch:
            hashes = [entry.task for entry in entries]
            consumer = partial(Summed, sums=self.sums, hashes=hashes)
        tasks = self.ledger.tasks()
        with self._naming(), opening.opened(recipe) as plan:
            self._sure = True  # what opens task files has compared the hash
            license = licences.of_folder(self.base.folder)
            report = merging_files.to_files(
                judged(plan, strict),
                output,
                threads=threads,
                shard_size=shard_size,
                force=force,
                strict=strict,
                progress=progress,
                choice=licences.Parts(self.settings, number, entries, tasks, license),
                consumer=consumer,
            )
            report.warnings = [self.named(line) for line in report.warnings]
            return report

    def recipe(
        self,
        entries: list[Entry],
        method: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        dtype: str | None = None,
    ) -> Recipe:
        """Return how some tasks are merged: `breadcrumbs.merge` of their files gives the same."""
        return settling.recipe(self.settings, entries, self.folder, method, parameters, dtype)

    def verify(self, at: int | None = None, threads: int | None = None) -> Verified:
        """Read all that the store holds, and merge a revision from scratch.

        StoreError if a task file is damaged or gone, or if the merge from scratch is not bit for
        bit the one from the running sum. Blocks of the sum that are damaged are made again.
        """
        used = self.check_files()
        self._check_base(fresh=True)
        cores = threads or machine.available_cores()
        repaired = self.sums.repair(self.ledger.latest, cores)
        number = self.ledger.latest() if at is None else at
        with files.spare(self.folder) as spare:
            hashes = []
            for scratch in (True, False):
                output = spare / f"{scratch}.safetensors"
                with durable.syncing(False):
                    self.merge(output, at=number, threads=threads, scratch=scratch)
                hashes.append(hashing.model_hash(output, cores))
                output.unlink()
        if hashes[0] != hashes[1]:
            raise StoreError(
                f"{self.folder}: revision {number} merged from scratch has the hash"
                f" {hashes[0][:16]}..., from the running sum {hashes[1][:16]}.... Delete the folder"
                f" {files.SUMS!r} in it, and report this."
            )
        return Verified(number, used, self.sums.blocks, repaired, hashes[0])

    def check_files(self) -> int:
        """Compare all task files with their hashes, and return how many there are.

        StoreError for the first that is damaged or gone.
        """
        used = self.ledger.history().tasks()
        with self._naming():
            for digest in sorted(used):
                path = files.place(self.folder, digest)
                found = files.digest_of(path)
                if found != digest:
                    raise StoreError(
                        f"{path}: its hash is {found[:16]}..., not that of its name. It is damaged;"
                        " restore a copy, or import an export."
                    )
        return len(used)

    # --- how ---

    @property
    def sums(self) -> Sums:
        """The running sum."""
        if self._sum is None:
            chosen = kernels.choose()
            self._sum = Sums(
                self.folder / files.SUMS,
                self.base,
                self.settings.base_hash,
                self._state,
                self.task,
                chosen,
            )
        return self._sum

    def _state(self, number: int) -> State:
        """Return what is summed for a revision."""
        with self._lock:
            if number not in self._states:
                self._states[number] = counted(self.ledger.at(number))
            return self._states[number]

    def _check_base(self, fresh: bool = False) -> None:
        if self._sure and not fresh:
            return
        found = hashing.model_hash(self.base, fresh=fresh)
        if found != self.settings.base_hash:
            raise MismatchError(
                f"{self.base.label}: its hash is {found[:16]}..., not"
                f" {self.settings.base_hash[:16]}..., that of the base"
                f" {shown(self.settings.base_name)} of this store. Give the base with --base."
            )
        self._sure = True

    def _pack(
        self,
        source: Checkpoint,
        name: str,
        path: Path,
        *,
        recipe: dict[str, Any],
        note: Callable[[str], None],
        judge: Callable[[Plan], Plan],
        **options: Any,
    ) -> About:
        transform, given = self.packed_as()
        models = (Model(source.label, name=name),)
        made = packing.recipe(self.settings.base, models, transform, given, **recipe)
        plan = judge(opening.planned(made, [self.base, source]))
        for line in plan.notes:
            note(line)
        if transform == "none" and source.is_bare_adapter:
            found = importing.whole(self.base, source, recipe)
            if found is not None:  # two thin matrices, where all entries of their product change
                who = {key: options.get(key, "") for key in ("author", "license")}
                return importing.write(*found, path, name, **who)
        return packing.of(plan, path, **options)

    def _check_task(self, task: TaskFile, label: str) -> None:
        if task.base.hash != self.settings.base_hash:
            raise MismatchError(
                f"{label}: is a task on {shown(task.base.name)}, hash {task.base.hash[:16]}...;"
                f" this store is for {shown(self.settings.base_name)}, hash"
                f" {self.settings.base_hash[:16]}.... Pack it with that base."
            )

    def _check_fits(self, name: str, path: Path) -> None:
        """Raise an error unless a task can be merged with those that are there."""
        made = self.recipe(self.entries()[:1])
        made = dataclasses.replace(made, models=(*made.models, Model(str(path), name=name)))
        method = registry.get(made.method)
        if settling.tells_models_apart(method, len(made.models)):
            given = settling.packed_as(method, made.parameters)
            made = packing.recipe(made.base, made.models, *given)
        with ExitStack() as stack:
            paths = [model.path for model in made.models]
            opened = [stack.enter_context(checkpoint.open(where)) for where in paths]
            opening.planned(made, [self.base, *opened])


def _judge(plan: Plan, strict: bool, warn: Callable[[Sequence[str]], None]) -> Plan:
    """Return the plan with its warnings, which are told."""
    plan = judged(plan, strict)
    warn(plan.warnings)
    return plan
