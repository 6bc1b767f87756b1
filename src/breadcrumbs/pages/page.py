"""A page as plain data: its sections, figures with their specifications, and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Text or a number; None where there is nothing.
Cell = str | int | float | None
#: Text that is a number: 12.5%, -0.004, 71.2 ± 0.4.
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?%?( ± [\d.]+%?)?|")
#: A label and what it is.
Fact = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """Rows under a header. best: cells (row, column) to set off. caption: what the table holds."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    best: frozenset[tuple[int, int]] = frozenset()

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold nothing but numbers, percentages too."""
        columns = zip(*self.rows, strict=True) if self.rows else ()
        found = [
            any(cell is not None for cell in column)
            and all(cell is None or _is_number(cell) for cell in column)
            for column in columns
        ]
        return found or [False] * len(self.columns)


@dataclass(frozen=True)
class Choice:
    """What the reader may choose in a figure. signal: of the specification. The first option is
    shown at the beginning: (value, text) of each."""

    signal: str
    label: str
    options: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A chart with all that is needed to understand it without seeing it.

    name: of letters and dashes; what ``--svg NAME.svg`` asks for. says: what the chart shows, and
    how to read it. spec: Vega-Lite, whose colours are names of `theme.COLOURS` after an ``@``.
    table: the numbers behind the chart.
    """

    name: str
    title: str
    says: str
    spec: Mapping[str, Any]
    table: Table
    choices: Sequence[Choice] = ()


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading. code: text to be shown as it is, such as a recipe."""

    title: str
    says: str = ""
    facts: Sequence[Fact] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: str = ""


@dataclass(frozen=True)
class Page:
    """A page. kind: the command that it is of. lead: what it is about, in a sentence or two.
    tiles: the few numbers to see first: label and value."""

    title: str
    kind: str
    lead: str
    tiles: Sequence[Fact] = ()
    sections: Sequence[Section] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = field(default=())

    @property
    def figures(self) -> dict[str, Figure]:
        """All figures by name."""
        return {figure.name: figure for section in self.sections for figure in section.figures}


def _is_number(cell: Cell) -> bool:
    return not isinstance(cell, str) or _NUMBER.fullmatch(cell) is not None
