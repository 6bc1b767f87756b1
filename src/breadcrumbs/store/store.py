"""A store: tasks on one base, kept as small files, with a history and a running sum."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint, machine
from breadcrumbs.checkpoint import durable, hashing, mirrors, places
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.errors import BreadcrumbsError, StoreError
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.merging.report import Report
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.store import adding, authors, files, licences, opted, settling, weighting
from breadcrumbs.store.held import Held
from breadcrumbs.store.history import Revision
from breadcrumbs.store.ledger import Ledger, Task, already
from breadcrumbs.taskfile import reader
from breadcrumbs.taskfile.reader import TaskFile


@dataclass(frozen=True)
class Verified:
    """What `Store.verify` found. tasks: files read. blocks: of the running sum; grams: matrices
    whose Grams are kept; repaired: those of both that were damaged, and were made again. hash: of
    the merged model."""

    revision: int
    tasks: int
    blocks: int
    repaired: int
    hash: str
    grams: int = 0


class Store(Held):
    """A store, to change and to merge. Use `create` and `open`."""

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
        places.refuse_output(os.fspath(folder))
        path = Path(folder)
        made = Recipe(os.fspath(base), (), method, parameters)
        with files.fresh(path) as making:
            Ledger.create(making / files.LEDGER, settling.settings(os.fspath(base), made))
        return Store(path)

    @staticmethod
    def open(folder: str | os.PathLike[str], base: str | os.PathLike[str] | None = None) -> Store:
        """Open a store. base: where the base is now, if it has moved."""
        return Store(Path(folder), None if base is None else os.fspath(base))

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
                    mirrors.whole(opened.files)
                    with open(opened.files[0], "rb") as file:
                        files.copy(file, path)
                else:
                    adding.pack(
                        self,
                        opened,
                        name,
                        path,
                        author=task_author,
                        license=license or licences.of_folder(opened.folder, note),
                        threads=threads,
                        progress=progress,
                        note=note,
                        judge=lambda plan: adding.judge(plan, strict, warn),
                        recipe={
                            "exclude": opening.globs(exclude),
                            "only": opening.globs(only),
                            "missing": missing,
                            "extra": extra,
                            "rename": opening.globs(rename),
                        },
                    )
            with TaskFile.open(path) as task:
                adding.check_task(self, task, os.fspath(source))
                opted.check(task, self, os.fspath(source), note)
                said = settling.said_of(task)
            digest = files.digest_of(path)
            nbytes = path.stat().st_size
            adding.check_fits(self, name, path)
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
        """Bring the running sum, and Grams if they are kept, to the latest revision."""
        self._check_base()
        with self._naming():
            self.sums.update(self.ledger.latest, threads or machine.available_cores())
            opted.update(self, threads or machine.available_cores())

    def keep_grams(self, keep: bool = True, threads: int | None = None) -> bool:
        """Keep what `wudi` takes of all tasks, or give it up; return whether that is new.

        Then merging by wudi takes one decomposition a matrix, however many tasks there are.
        """
        if not keep:
            return opted.give_up(self)
        new = opted.begin(self)
        self.update(threads)
        return new

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
        weights: Sequence[str] | Mapping[str, float] = (),
        progress: Callable[[int], None] = lambda nbytes: None,
        **parameters: Any,
    ) -> Report:
        """Write the merged model of a revision, the latest unless told; return the report.

        method, parameters: others than the store's. scratch: from all task files, and not from the
        running sum; the same bits. strict: whether warnings are errors. weights: others than the
        store's, for this merge alone, as `weighting.weighted` takes them.
        """
        number = self.ledger.latest() if at is None else at
        entries = weighting.weighted(self.entries(number), weights)
        recipe = self.recipe(entries, method, parameters, dtype)
        consumer = opted.consumer(self, entries, scratch) or Writing
        tasks = self.ledger.tasks()
        with self._naming(), opening.opened(recipe) as plan:
            self._sure = True  # what opens task files has compared the hash
            grams = opted.said(self, plan)
            more = weighting.said(entries, weights) + grams
            plan = dataclasses.replace(plan, notes=(*plan.notes, *more))
            license = licences.of_folder(self.base.folder)
            report = merging_files.to_files(
                judged(plan, strict),
                output,
                threads=threads,
                shard_size=shard_size,
                force=force,
                strict=strict,
                progress=progress,
                choice=licences.Parts(self.settings, number, entries, tasks, license, bool(grams)),
                consumer=consumer,
            )
            report.warnings = [self.named(line) for line in report.warnings]
            return report

    def verify(self, at: int | None = None, threads: int | None = None) -> Verified:
        """Read all that the store holds, and merge a revision from scratch.

        StoreError if a task file is damaged or gone, or if the merge from scratch is not bit for
        bit the one from the running sum. Blocks of the sum that are damaged are made again.
        """
        used = self.check_files()
        self._check_base(fresh=True)
        cores = threads or machine.available_cores()
        repaired = self.sums.repair(self.ledger.latest, cores)
        grams, wrong = opted.repair(self, cores)
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
        return Verified(number, used, self.sums.blocks, repaired + wrong, hashes[0], grams)
