"""Tables of results on the screen."""

from __future__ import annotations

from collections.abc import Iterable

from breadcrumbs.cli import console
from breadcrumbs.evaluate.results import exports, tables
from breadcrumbs.evaluate.results.results import BASE, Row


def show(rows: Iterable[Row]) -> None:
    """Print the table of rows of one suite and split."""
    rows = list(rows)
    table = tables.of(rows)
    alike = dict.fromkeys(r.label for r in rows if r.model == r.base and r.label != BASE)
    notes = [f"{label}: its weights are the base's, bit for bit" for label in alike]
    console.grid(exports.of_table(table), table.title, [*notes, *table.notes])
