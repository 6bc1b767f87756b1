"""The screen: tables, progress, notes and warnings, in one look."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from breadcrumbs.errors import printable, sentence
from breadcrumbs.plan import Plan


def terminal(stderr: bool = False) -> Any:
    """Return a console of rich that prints what it is given as it is."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def ruled(*columns: str, right: tuple[int, ...] = ()) -> Any:
    """Return a table of rich with a line below its head. right: columns of numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    return table


@contextmanager
def progress(plan: Plan, *, quiet: bool, doing: str = "merging") -> Iterator[Callable[[int], None]]:
    """Show a bar with bytes per second and time left on a terminal, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
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
        console=terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=plan.bytes_measured + plan.bytes_read)
        yield lambda nbytes: bar.advance(task, nbytes)


@contextmanager
def status(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is being done, in one line that is replaced."""
    if quiet or not sys.stderr.isatty():
        yield lambda what: None
        return
    console = terminal(stderr=True)
    with console.status("") as line:
        yield lambda what: line.update(what)


@contextmanager
def counted(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar of things done on a terminal, with the time left, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
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
        console=terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(
            task, completed=done, total=total, description=what
        )


def note(notes: Any) -> None:
    """Print what is right, but should be known."""
    for note in notes:
        print(f"note: {sentence(printable(note))}", file=sys.stderr)


def warnings(warnings: Sequence[str]) -> None:
    """Print warnings, a line each."""
    for warning in warnings:
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
    width = None if stream.isatty() else 1 << 16
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
