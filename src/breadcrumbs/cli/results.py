"""`breadcrumbs results`."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import (
    command,
    force_option,
    json_option,
    sync_option,
)
from breadcrumbs.errors import sentence

if TYPE_CHECKING:
    from breadcrumbs.evaluate.results.comparison import Comparison
    from breadcrumbs.evaluate.results.seeds import OverSeeds
    from breadcrumbs.evaluate.results.tables import Table

#: The format of a file, by the end of its name, where none is given.
_ENDS = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json"}
_FORMATS = ["table", "csv", "wide", "markdown", "latex", "json"]


@command()
@click.argument("file", default="results.sqlite")
@click.option("--suite", help="Results of this suite. Default: the latest.")
@click.option("--task", "tasks", multiple=True, metavar="NAME|GLOB", help="Only these tasks.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME|GLOB|HASH",
    help="Only these models; for a hash, its first 4 or more digits.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="The rows that were scored.",
)
@click.option("--seed", "seeds", type=int, multiple=True, help="Only these seeds.")
@click.option("--precision", help="Only float32, or bfloat16.")
@click.option(
    "--over",
    type=click.Choice(["seeds"]),
    help="One line per model: the mean over its seeds, with its standard error.",
)
@click.option("--best-first", is_flag=True, help="Sort models by their mean.")
@click.option(
    "--compare",
    nargs=2,
    metavar="A B",
    help="How much better A is than B, with standard errors.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(_FORMATS),
    help="Default: by the ending of the output, or table. csv: all fields of each row;"
    " wide: one line per model.",
)
@click.option("-o", "--output", metavar="FILE", help="Write to a file instead of stdout.")
@force_option
@sync_option
@page_options
@json_option
def results(file: str, paging: Paging, **options: Any) -> None:
    """Show, compare and export results.

    FILE is what `breadcrumbs evaluate` wrote (default: results.sqlite). Models are rows, tasks are
    columns, accuracies are in percent. `normalised` is a model's accuracy divided by that of the
    task's own fine-tuned model, averaged over tasks. After ± stands one standard error: over rows
    or, with --over seeds, over seeds (docs/evaluation.md). The best of each column is bold. For
    all fields of all rows use --format csv or --json.

    \b
    breadcrumbs results
    breadcrumbs results results.sqlite --split validation --task "glyphs-*" --best-first
    breadcrumbs results --compare merged "ties of 8"
    breadcrumbs results --over seeds --best-first
    breadcrumbs results --format latex -o table.tex
    breadcrumbs results --html page.html --svg pareto.svg
    """
    from breadcrumbs.cli import files
    from breadcrumbs.evaluate.results import comparison, seeds, tables
    from breadcrumbs.evaluate.results.results import Results

    output, kind = options["output"], options["kind"]
    if options["as_json"]:
        kind = "json"
    kind = kind or _ENDS.get(Path(output).suffix.lower() if output else "", "table")
    if options["compare"] and kind == "wide":
        raise click.UsageError("--format wide is of tables, not of comparisons")
    if options["compare"] and options["over"]:
        raise click.UsageError("--compare is of two models on the same rows; choose a --seed")
    filters = {"seed": options["seeds"], "precision": options["precision"]}
    with Results(file, readonly=True) as rows:
        chosen = tables.choose(
            rows,
            suite=options["suite"],
            split=options["split"],
            tasks=options["tasks"],
            **{name: value for name, value in filters.items() if value},
        )
    table = tables.of(chosen)
    if options["models"]:
        table = table.only(options["models"])
    if paging.wanted:
        _page(paging, table, options["compare"])
    if options["compare"]:
        text = _comparison(comparison.compare(table, *options["compare"]), table, kind, output)
    else:
        shown = seeds.over(table) if options["over"] else table
        text = _table(shown.best_first() if options["best_first"] else shown, kind, output)
    if output:
        files.write(output, text, force=options["force"])
    else:
        click.echo(text, nl=False)


def _page(paging: Paging, table: Table, pair: tuple[str, str] | None) -> None:
    from breadcrumbs.evaluate.results import comparison, picture

    made = picture.of(table)
    if pair:
        made = picture.of_comparison(table, comparison.compare(table, *pair))
    paging.write(made)


def _table(table: Table | OverSeeds, kind: str, output: str | None) -> str:
    """Return a table as text; print it, if it is for the screen."""
    from breadcrumbs.evaluate.results import exports
    from breadcrumbs.evaluate.results.seeds import OverSeeds

    if kind == "json":
        return json.dumps(table.to_mapping(), indent=2) + "\n"
    if kind == "csv":
        if isinstance(table, OverSeeds):
            return exports.seeds_csv(table)
        lines = [*table.lines, *table.single]
        rows = {id(row): row for line in lines for row in line.rows.values()}
        return exports.rows_csv(rows.values())
    if kind == "wide":
        return exports.wide_csv(table)
    return _grid(exports.of_table(table), kind, table.title, table.notes, output)


def _comparison(found: Comparison, table: Table, kind: str, output: str | None) -> str:
    from breadcrumbs.evaluate.results import exports

    if kind == "json":
        return json.dumps(found.to_mapping(), indent=2) + "\n"
    if kind == "csv":
        return exports.comparison_csv(found)
    title = f"{table.suite}, {table.split} rows: {found.first.name} minus {found.second.name}"
    notes = (exports.verdict(found), *found.notes)
    return _grid(exports.of_comparison(found), kind, title, notes, output)


def _grid(grid: Any, kind: str, title: str, notes: Sequence[str], output: str | None) -> str:
    from breadcrumbs.cli import console
    from breadcrumbs.evaluate.results import exports

    if kind in ("markdown", "latex"):
        for note in notes:
            click.echo(f"note: {sentence(note)}", err=True)
        return exports.markdown(grid) if kind == "markdown" else exports.latex(grid)
    out = io.StringIO() if output else None
    console.grid(grid, title, notes, out)
    return out.getvalue() if out else ""
