"""The history of a store: what its revisions change, and what each of them holds.

A revision is a number. What it holds follows from the changes up to it, but for two kinds whose
tasks are written out: one that goes back to an earlier revision, and the first one that is kept
where earlier ones were dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from breadcrumbs.errors import StoreError

ACTIONS = ("add", "replace", "remove", "set", "revert")


@dataclass(frozen=True)
class Revision:
    """A change. action: one of `ACTIONS`. name, task, weight: the task that it adds, replaces, sets
    or removes, the hash of its file (empty where that was dropped), and its weight; '', '', 0 of a
    revert. target: the revision that a revert goes back to."""

    number: int
    time: str
    action: str
    name: str
    task: str
    weight: float
    author: str = ""
    message: str = ""
    target: int | None = None


@dataclass(frozen=True)
class Entry:
    """A task that takes part in a revision."""

    name: str
    task: str
    weight: float


@dataclass(frozen=True)
class History:
    """The changes that are kept, the first one first. whole: number -> the tasks of a revision,
    where they are written out."""

    log: Sequence[Revision] = ()
    whole: Mapping[int, Sequence[Entry]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The first revision that is kept; 1 if none was dropped."""
        return self.log[0].number if self.log else 1

    @property
    def latest(self) -> int:
        """The latest revision; 0 before the first."""
        return self.log[-1].number if self.log else 0

    def at(self, number: int | None, where: object = "store") -> list[Entry]:
        """Return the tasks of a revision in the order of adding, the latest unless told.

        StoreError if there is no such revision, or no more, or if changes contradict each other.
        """
        number = self.latest if number is None else number
        if number and not self.first <= number <= self.latest:
            dropped = 0 < number < self.first
            raise StoreError(
                f"{where}: revision {number} was dropped by `breadcrumbs store gc`; the oldest kept"
                f" is {self.first}."
                if dropped
                else f"{where}: there is no revision {number}; the latest is {self.latest}."
            )
        for revision, entries in self.states():
            if revision.number == number:
                found = entries
        return found if number else []

    def states(self) -> Iterator[tuple[Revision, list[Entry]]]:
        """Yield each revision with its tasks; StoreError where changes contradict each other."""
        entries: dict[str, Entry] = {}
        targets = {revision.target for revision in self.log if revision.action == "revert"}
        seen: dict[int | None, list[Entry]] = {0: []}
        written = dict(self.whole)
        for expected, revision in enumerate(self.log, self.first):
            whole = written.pop(revision.number, None)
            if revision.number != expected or not _fits(revision, entries, whole, self.first):
                raise _contradiction(revision)
            if whole is not None:
                if revision.action == "revert" and seen.get(revision.target, whole) != list(whole):
                    raise _contradiction(revision)
                entries = {entry.name: entry for entry in whole}
                if len(entries) != len(whole):
                    raise _contradiction(revision)
            else:
                if revision.action in ("remove", "replace"):
                    del entries[revision.name]
                if revision.action != "remove":
                    entries[revision.name] = Entry(revision.name, revision.task, revision.weight)
            now = list(entries.values())
            if revision.number in targets:
                seen[revision.number] = now
            yield revision, now
        if written:
            raise StoreError(
                f"revision {min(written)}: its tasks are written out, and should not be. The ledger"
                " was altered; go back to a copy of it."
            )

    def tasks(self) -> dict[str, str]:
        """Return the hashes of all task files that a kept revision has: hash -> name of a task."""
        found = {entry.task: entry.name for entries in self.whole.values() for entry in entries}
        found |= {revision.task: revision.name for revision in self.log if revision.task}
        return found

    def since(self, number: int) -> History:
        """Return the history without what is before a revision."""
        if number <= self.first:
            return self
        first, *log = (revision for revision in self.log if revision.number >= number)
        whole = {n: entries for n, entries in self.whole.items() if n >= number}
        whole[number] = self.at(number)
        if first.task not in {entry.task for entry in whole[number]}:
            first = replace(first, task="")  # removed by it: no revision has that file any more
        return History([first, *log], whole)


def _fits(
    revision: Revision,
    entries: Mapping[str, Entry],
    whole: Sequence[Entry] | None,
    first: int,
) -> bool:
    """Return whether a revision can follow on ``entries``."""
    if revision.action not in ACTIONS:
        return False
    starts = revision.number == first > 1
    if (whole is not None) != (starts or revision.action == "revert"):
        return False
    if revision.action == "revert":
        target = revision.target
        return target is not None and 0 <= target < revision.number and not revision.task
    if starts:
        return revision.target is None
    if revision.target is not None or not revision.task:
        return False
    held = entries.get(revision.name)
    if revision.action == "add":
        return held is None
    return held is not None and (revision.action == "replace" or held.task == revision.task)


def _contradiction(revision: Revision) -> StoreError:
    what = repr(revision.name) if revision.name else f"to {revision.target}"
    return StoreError(
        f"revision {revision.number}: {revision.action} {what} does not follow from what is before"
        " it. The ledger was altered; go back to a copy of it."
    )
