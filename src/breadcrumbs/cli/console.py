"""The screen: tables, progress, notes and warnings, in one look."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from breadcrumbs.cli import silence
from breadcrumbs.errors import printable, sentence
from breadcrumbs.plan import Plan

#: As wide as nothing is.
WHOLE = 1 << 16
#: Variables by which rich takes what is no terminal for one.
_COLOURS = {"FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"}


class Table:
    """A table with a line below its head. right: columns of numbers. unbroken: columns whose cells
    stay on a line."""

    unbroken: tuple[int, ...] = ()

    def __init__(self, columns: Sequence[str], right: tuple[int, ...] = ()):
        self.columns, self.right, self.rows = columns, right, []
        self.sections: set[int] = set()

    def add_row(self, *cells: Any) -> None:
        self.rows.append(cells)

    def add_section(self) -> None:
        """Draw a line below the last row."""
        self.sections.add(len(self.rows))

    def __rich__(self) -> Any:
        """Return it as a table of rich."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, column in enumerate(self.columns):
            justify = "right" if i in self.right else "left"
            no_wrap = i in self.unbroken
            table.add_column(column, justify=justify, overflow="fold", no_wrap=no_wrap)
        for i, cells in enumerate(self.rows):
            if i in self.sections:
                table.add_section()
            table.add_row(*cells)
        return table

    def plain(self) -> str | None:
        """Return the text that rich makes of it where nothing is too wide; None where that is not
        so simple."""
        rows = [self.columns, *self.rows]
        if self.sections or not all(isinstance(c, str) and _simple(c) for row in rows for c in row):
            return None
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if not min(widths):
            return None
        within = sum(widths) + 3 * (len(widths) - 1)
        lines = [" " * within, "\u2500" * within]
        for row in rows:
            cells = zip(row, widths, strict=True)
            each = (c.rjust(w) if i in self.right else c.ljust(w) for i, (c, w) in enumerate(cells))
            lines.append("   ".join(each))
        blank, rule, head, *body = lines
        return "".join(f" {line} \n" for line in (blank, head, rule, *body, blank))

    def breaks(self, width: int) -> bool:
        """Return whether words must be broken to show it in so many columns."""
        least = 2 + 3 * (len(self.columns) - 1)
        for i, column in enumerate(zip(self.columns, *self.rows, strict=True)):
            whole = i in self.unbroken or i in self.right
            parts = (part for cell in column for part in ([cell] if whole else cell.split()))
            least += max((len(str(part)) for part in parts), default=0)
        return least > width

    def stacked(self, width: int) -> str:
        """Return each row as lines of a heading and a cell, for narrow screens."""
        import textwrap

        lines = []
        for first, *more in self.rows:
            lines += [str(first)] if first else []
            named = zip(self.columns[1:], more, strict=True)
            lines += [f"  {name}: {cell}" if name else f"  {cell}" for name, cell in named if cell]
        fill = functools.partial(textwrap.fill, width=max(10, width), subsequent_indent="    ")
        return "\n".join(map(fill, lines))


class Screen:
    """What prints text and tables as they are: on a terminal as wide as that is, elsewhere whole.

    By rich, which takes longer to import than a small merge does, where there is a terminal, or
    where text is not simple. Where a terminal is so narrow that words of a table would be broken,
    its rows are printed one below the other.
    """

    def __init__(self, stderr: bool):
        self.stderr = stderr

    def print(self, what: str | Table) -> None:
        stream = sys.stderr if self.stderr else sys.stdout
        text = None
        if not stream.isatty() and not _COLOURS & os.environ.keys() and _is_utf8(stream):
            text = what.plain() if isinstance(what, Table) else f"{what}\n"
        if text is None:
            console = with_rich(self.stderr)
            if isinstance(what, Table) and what.breaks(console.width):
                what = what.stacked(console.width)
            console.print(what)
        else:
            stream.write(text)
            stream.flush()


def terminal(stderr: bool = False) -> Screen:
    """Return what prints to stdout, or to stderr."""
    return Screen(stderr)


def with_rich(stderr: bool) -> Any:
    """Return a console of rich that prints what it is given as it is, whole but on a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WHOLE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def ruled(*columns: str, right: tuple[int, ...] = ()) -> Table:
    """Return a table with a line below its head. right: columns of numbers."""
    return Table(columns, right)


def _simple(text: str) -> bool:
    """Return whether each character is as wide as any other."""
    return text.isascii() and (text.isprintable() or not text)


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().startswith("utf")


@contextmanager
def progress(
    plan: Plan, *, quiet: bool, doing: str = "merging", more: int = 0
) -> Iterator[Callable[[int], None]]:
    """Show a bar with bytes per second and time left on a terminal, and nothing elsewhere.

    more: bytes that are done besides those that the plan reads.
    """
    if quiet or silence.is_on() or not sys.stderr.isatty():
        yield lambda nbytes: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=with_rich(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=plan.bytes_measured + plan.bytes_read + more)
        yield lambda nbytes: bar.advance(task, nbytes)


@contextmanager
def status(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is being done, in one line that is replaced."""
    if quiet or silence.is_on() or not sys.stderr.isatty():
        yield lambda what: None
        return
    console = with_rich(stderr=True)
    with console.status("") as line:
        yield lambda what: line.update(what)


@contextmanager
def counted(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar of things done on a terminal, with the time left, and nothing elsewhere."""
    if quiet or silence.is_on() or not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=with_rich(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def note(notes: Any) -> None:
    """Print what is right, but should be known."""
    for note in () if silence.is_on() else notes:
        print(f"note: {sentence(printable(note))}", file=sys.stderr)


def warnings(warnings: Sequence[str]) -> None:
    """Print warnings, a line each."""
    for warning in () if silence.is_on() else warnings:
        print(f"warning: {sentence(printable(warning))}", file=sys.stderr)


def rows(header: Sequence[str], body: Sequence[Sequence[str]], right: tuple[int, ...] = ()) -> None:
    """Print rows of text under a header."""
    table = ruled(*header, right=right)
    for row in body:
        table.add_row(*(printable(cell) for cell in row))
    terminal().print(table)


def grid(grid: Any, title: str, notes: Sequence[str] = (), out: TextIO | None = None) -> None:
    """Print a grid of cells, in several tables where the terminal is too narrow for one.

    out: a file that is written instead, where nothing is too wide.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    stream: TextIO = out or sys.stdout
    width = None if stream.isatty() else WHOLE
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    columns = list(zip(grid.header, *grid.body, strict=True))
    widths = [max(cell_len(printable(cell)) for cell in column) + 3 for column in columns]
    blocks: list[list[int]] = [[]]
    for number in range(1, len(columns)):
        if blocks[-1] and sum(widths[j] for j in (0, *blocks[-1], number)) > console.width:
            blocks.append([])
        blocks[-1].append(number)
    console.print(printable(title))
    for block in blocks:
        shown = [0, *block]
        right = tuple(range(1, len(shown)))
        table = ruled(*(printable(grid.header[j]) for j in shown), right=right)
        for i, row in enumerate(grid.body):
            if grid.last and i + 1 == len(grid.body):
                table.add_section()
            style = ["bold" if (i, j) in grid.best else "" for j in shown]
            cells = zip(shown, style, strict=True)
            table.add_row(*(Text(printable(row[j]), style=one) for j, one in cells))
        console.print(table)
    for note in notes:
        console.print(printable(sentence(note)))
