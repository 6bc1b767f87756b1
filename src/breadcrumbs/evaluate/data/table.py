"""The rows of one split of a source, before its labels have numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.evaluate.data.inputs import Picture
from breadcrumbs.plan.declared import kind

Label = str | int


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what. text: one, or two for pairs; none if image is given."""

    text: tuple[str, ...]
    image: str | None
    label: str
    split: str = "split"

    @property
    def needed(self) -> tuple[str, ...]:
        return (*self.text, *([self.image] if self.image else []), self.label)


@dataclass(frozen=True)
class Table:
    """Rows of a source.

    inputs: a text, a pair of texts or a `Picture` each. labels: a name or a number each. where:
    a row -> its place, for messages. names: of numbers, where the source has them. splits: the
    column of that name, if there is one.
    """

    inputs: Sequence[Any]
    labels: Sequence[Label]
    where: Callable[[int], str]
    names: tuple[str, ...] | None = None
    splits: Sequence[Any] | None = None

    def only(self, rows: Sequence[int]) -> Table:
        """Return these rows as a table."""
        return Table(
            [self.inputs[row] for row in rows],
            [self.labels[row] for row in rows],
            lambda row: self.where(rows[row]),
            self.names,
        )


def check_columns(columns: Columns, has: Iterable[str], where: str) -> None:
    """Raise SuiteError for a column that is not there."""
    has = list(has)
    for name in columns.needed:
        if name not in has:
            raise SuiteError(
                f"{where}: there is no column {name!r}. The columns are {', '.join(has)}."
                f"{suggestion(name, has)} `text` (or `image`) and `label` of the task name them."
            )


def input_of(record: Mapping[str, Any], columns: Columns, folder: Path, where: str) -> Any:
    """Return the input that a record holds. folder: what paths of pictures are relative to."""
    if columns.image is not None:
        cell = record[columns.image]
        if not isinstance(cell, str) or not cell:
            raise _odd(columns.image, cell, "the path of a picture", where)
        return file_picture(folder / cell, f"{where}: {folder / cell}")
    return texts(tuple(record[name] for name in columns.text), columns.text, where)


def texts(cells: tuple[Any, ...], names: Sequence[str], where: str) -> str | tuple[str, ...]:
    """Return a text or a pair of them; SuiteError for a cell that is not a text."""
    for name, cell in zip(names, cells, strict=True):
        if not isinstance(cell, str):
            raise _odd(name, cell, "a text", where)
    return cells[0] if len(cells) == 1 else cells


def _odd(name: str, cell: Any, belongs: str, where: str) -> SuiteError:
    return SuiteError(f"{where}: column {name!r} holds {kind(cell)} where {belongs} belongs.")


def file_picture(path: Path, where: str) -> Picture:
    """Return the picture in a file, which is read when it is asked for. where: for messages."""

    def stored() -> bytes:
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SuiteError(f"{where}: cannot be read: {reason}.") from None

    return Picture(where, stored)


def given(value: Any, where: str) -> Any:
    """Return the input that a Python file gives: a text, a pair of texts, a picture or pixels."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list) and len(value) == 2:
        return texts(tuple(value), ("first", "second"), where)
    if isinstance(value, np.ndarray) or hasattr(value, "convert"):
        return Picture(where, lambda: value)
    raise SuiteError(
        f"{where}: an input is {kind(value)}. Give a text, two texts, a PIL picture or its pixels."
    )


def label_of(cell: Any, where: str, column: str = "label") -> Label:
    """Return a label: a name, or a number (false and true are 0 and 1)."""
    if isinstance(cell, str) and cell:
        return cell
    if isinstance(cell, bool | int | np.integer | np.bool_):
        return int(cell)
    raise _odd(column, cell, "a label, a text or a whole number,", where)
