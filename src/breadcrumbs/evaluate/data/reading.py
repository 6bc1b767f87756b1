"""Rows of a task: source -> splits -> numbers of classes; read at first use, and kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import SplitError, SuiteError, listing, suggestion
from breadcrumbs.evaluate.data import splits
from breadcrumbs.evaluate.data.inputs import Inputs, key
from breadcrumbs.evaluate.data.sources import Source, Tables
from breadcrumbs.evaluate.data.splits import Part
from breadcrumbs.evaluate.data.table import Table
from breadcrumbs.evaluate.data.task import Rows, Split


@dataclass(frozen=True, eq=False, repr=False)
class Reader:
    """Reads the rows of one task.

    sources: by the name of the split that each is, or one under the name `splits.REST` that has
    splits of its own. labels: as the suite declares them, or None. free: whether labels are answers
    in free words, of which training rows need not have all.
    """

    task: str
    sources: Mapping[str, Source]
    declared: tuple[str, ...] | None
    parts: Mapping[Split, Part]
    seed: int
    free: bool = False
    _pools: dict[str, _Pool] = field(default_factory=dict)
    _rows: dict[Split, Rows] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<reader of {self.task!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what is declared: another process reads the rows itself."""
        return Reader, (self.task, self.sources, self.declared, self.parts, self.seed, self.free)

    def rows(self, split: Split) -> Rows:
        """Return the rows of a split; errors begin with the name of the task."""
        try:
            if split not in self._rows:
                self._rows[split] = self._read(split)
            return self._rows[split]
        except SuiteError as error:
            raise _within(self.task, error) from None

    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes; reads training rows unless the suite or source says."""
        try:
            return self._labels
        except SuiteError as error:
            raise _within(self.task, error) from None

    @cached_property
    def _tables(self) -> Tables:
        if splits.REST in self.sources:
            return self.sources[splits.REST].tables()
        return {name: lambda s=s, n=name: _only(s, n) for name, s in self.sources.items()}

    @cached_property
    def _complete(self) -> dict[Split, Part]:
        return splits.complete(self.parts, list(self._tables))

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        if self.declared is not None:
            return self.declared
        if self.free:
            pools = map(self._of, self._complete)
            return tuple(sorted({pool.labels[row] for pool, rows in pools for row in rows}))
        pool, rows = self._of("train")
        return pool.table.names or tuple(sorted({pool.labels[row] for row in rows}, key=_natural))

    def _pool(self, name: str) -> _Pool:
        if name not in self._pools:
            parts: dict[Split, Part] = {
                split: part for split, part in self._complete.items() if part.of == name
            }
            table = self._tables[name]()
            self._pools[name] = _Pool(table, names_of(table, self.declared), parts, self.seed)
        return self._pools[name]

    def _of(self, split: Split) -> tuple[_Pool, Sequence[int]]:
        pool = self._pool(self._complete[split].of or "")
        return pool, pool.rows[split]

    def _read(self, split: Split) -> Rows:
        pool, rows = self._of(split)
        if not rows:
            raise SplitError(f"the {split} split is empty. Give it rows, or declare `splits`.")
        numbers = {name: number for number, name in enumerate(self._labels)}
        for row in rows:
            if pool.labels[row] not in numbers:
                raise SuiteError(
                    f"{pool.table.where(row)}: label {pool.labels[row]!r} is in no training row."
                    f"{suggestion(pool.labels[row], numbers)} Declare `labels`, or correct it."
                )
        labels = np.asarray([numbers[pool.labels[row]] for row in rows], np.int64)
        if split == "train" and not self.free:
            _check_classes(self._labels, labels)
        inputs = Inputs([pool.table.inputs[row] for row in rows])
        keys = [pool.keys[row] for row in rows]
        return Rows(inputs, labels, digest(keys, labels, self._labels), pool.notes)


@dataclass(frozen=True, eq=False)
class _Pool:
    """One split of the source, and which of its rows are in which part of it."""

    table: Table
    labels: Sequence[str]
    parts: Mapping[Split, Part]
    seed: int

    @cached_property
    def keys(self) -> list[bytes]:
        return [key(stored) for stored in self.table.inputs]

    @cached_property
    def distinct(self) -> tuple[list[int], int, int]:
        return splits.distinct(self.keys, self.labels)

    @cached_property
    def rows(self) -> Mapping[Split, Sequence[int]]:
        if not any(part.drawn for part in self.parts.values()):
            return {split: range(len(self.labels)) for split in self.parts}
        kept = self.distinct[0]
        keys, labels = [self.keys[row] for row in kept], [self.labels[row] for row in kept]
        drawn = splits.draw(keys, labels, self.parts, self.seed)
        return {split: [kept[row] for row in rows] for split, rows in drawn.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what was left out, where rows were drawn."""
        if not any(part.drawn for part in self.parts.values()):
            return ()
        _, again, torn = self.distinct
        of = next(iter(self.parts.values())).of
        where = "the source" if of == splits.REST else f"{of!r}"
        what = [
            (again, "that repeat another row"),
            (torn, "whose input has another label elsewhere"),
        ]
        return tuple(f"{n} rows of {where} are left out {why}" for n, why in what if n)


class Labels(Sequence[str]):
    """The names of a task's classes, read when they are asked for."""

    def __init__(self, reader: Reader):
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader.labels())

    def __getitem__(self, index: Any) -> Any:
        return self._reader.labels()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader.labels())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self._reader.labels())

    def __repr__(self) -> str:  # which must not read rows
        return f"<labels of {self._reader.task!r}>"


def names_of(table: Table, declared: tuple[str, ...] | None) -> list[str]:
    """Return the name of each row's label.

    A number is that of a declared label, unless declared labels are numbers themselves; else of the
    source's names; else a name. Declared labels that are other words than the source's names, one
    for each, are new names for them.
    """
    names = table.names
    if names is not None and declared is not None:
        names = _renamed(names, declared, table)
    elif declared is not None and not any(_whole(label) for label in declared):
        names = declared
    found = [_name(label, names, table, row) for row, label in enumerate(table.labels)]
    if declared is not None:
        known = set(declared)
        for row, name in enumerate(found):
            if name not in known:
                raise SuiteError(
                    f"{table.where(row)}: label {name!r} is not in `labels`."
                    f"{suggestion(name, declared)}"
                )
    return found


def _renamed(names: tuple[str, ...], declared: tuple[str, ...], table: Table) -> tuple[str, ...]:
    strange = [label for label in declared if label not in names]
    if not strange:
        return names
    where = table.where(0).rpartition(",")[0]
    if len(strange) < len(declared):
        raise SuiteError(
            f"{where}: `labels` has {strange[0]!r}, which is not one of the source's labels"
            f" ({listing(names)}).{suggestion(strange[0], names)}"
        )
    if len(declared) != len(names):
        raise SuiteError(
            f"{where}: `labels` renames the source's labels, and has {len(declared)} names for"
            f" {len(names)}: {listing(names)}."
        )
    return declared


def _name(label: str | int, names: tuple[str, ...] | None, table: Table, row: int) -> str:
    if isinstance(label, str) and (names is None or not _whole(label) or label in names):
        return label
    number = int(label)
    if names is None:
        return str(number)
    if 0 <= number < len(names):
        return names[number]
    hidden = " It looks like a split whose labels are hidden." if number == -1 else ""
    raise SuiteError(
        f"{table.where(row)}: label {number} is out of range; there are {len(names)} labels, 0 to"
        f" {len(names) - 1}.{hidden}"
    )


def _whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii()


def _natural(name: str) -> tuple[int, int, str]:
    """Sort whole numbers by value, before texts."""
    return (0, int(name), name) if _whole(name) else (1, 0, name)


def _only(source: Source, name: str) -> Table:
    tables = source.tables()
    if list(tables) != [splits.REST]:
        raise SuiteError(
            f"{source.shown}: is given as the split {name!r} and has splits of its own"
            f" ({listing(tables)}). Give it as `data` alone."
        )
    return tables[splits.REST]()


def _check_classes(names: Sequence[str], labels: np.ndarray) -> None:
    there = Counter(labels.tolist())
    without = [name for number, name in enumerate(names) if number not in there]
    if without:
        raise SuiteError(
            f"{len(without)} of {len(names)} classes have no training rows: {listing(without)}."
            " Take more training rows, or leave the classes out of `labels` and data."
        )


def digest(keys: Sequence[bytes], labels: np.ndarray, names: Sequence[str]) -> str:
    """Return BLAKE3 of the inputs' keys, their labels and the names of the classes, in order."""
    hasher = blake3(len(names).to_bytes(8, "little"))
    for name in names:
        raw = name.encode("utf-8", "surrogatepass")
        hasher.update(len(raw).to_bytes(8, "little") + raw)
    hasher.update(b"".join(keys))
    hasher.update(labels.astype("<i8").tobytes())
    return hasher.hexdigest()


def _within(task: str, error: SuiteError) -> SuiteError:
    return type(error)(f"task {task!r}: {error}")
