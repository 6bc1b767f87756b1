"""What an open store holds: its settings, history, base, task files and running sum."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from breadcrumbs import checkpoint, kernels
from breadcrumbs.checkpoint import hashing
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import BreadcrumbsError, CheckpointError, MismatchError, StoreError
from breadcrumbs.methods import registry
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.store import files, settling
from breadcrumbs.store.history import Entry, Revision
from breadcrumbs.store.ledger import Ledger, Settings
from breadcrumbs.store.sums import State, Sums, counted
from breadcrumbs.taskfile.reader import TaskFile


class Held:
    """An open store, to look at. `Store` changes and merges it."""

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

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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

    def recipe(
        self,
        entries: list[Entry],
        method: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        dtype: str | None = None,
    ) -> Recipe:
        """Return how some tasks are merged: `breadcrumbs.merge` of their files gives the same."""
        return settling.recipe(self.settings, entries, self.folder, method, parameters, dtype)

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

    def forget(self) -> None:
        """Forget what is known of revisions, some of which may be gone."""
        with self._lock:
            self._states.clear()
