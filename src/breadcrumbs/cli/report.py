"""`breadcrumbs report`."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from breadcrumbs.cli.paging import Paging, page_options
from breadcrumbs.cli.shared import command
from breadcrumbs.errors import ResultsError, printable


@command()
@click.argument("file", default="results.sqlite")
@click.option("--suite", help="Rows of this suite. Default: the latest.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="validation",
    show_default=True,
    help="The rows that were scored; a search scores on validation rows.",
)
@click.option("--serve", is_flag=True, help="Serve the page to this machine, and keep it live.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Default: one that is free.")
@page_options
def report(file: str, paging: Paging, **options: Any) -> None:
    """Make a page of results, or serve one that stays live.

    With --serve the page is at an address of this machine alone (127.0.0.1), shows new scores as
    they come, and is gone with Ctrl-C. Nothing is written then but what --html asks for.

    \b
    breadcrumbs report results.sqlite --html page.html
    breadcrumbs report results.sqlite --serve
    """
    if not (options["serve"] or paging.wanted):
        raise click.UsageError("give --html FILE, or --serve to look at it live")

    from breadcrumbs.evaluate.results import picture

    if paging.wanted:
        paging.write(picture.of_file(file, options["suite"], options["split"]))
    if not options["serve"]:
        return
    if not _may_have_rows(Path(file)):
        raise ResultsError(f"{printable(file)}: is not a file of results. Give that of a search.")
    from breadcrumbs.pages import drawing
    from breadcrumbs.pages.serving import Server

    for name in ("jinja2", "vl_convert"):
        drawing.library(name)
    rows = partial(picture.live, file, options["suite"], options["split"])
    server = Server(rows, partial(stamp, file), options["port"])
    click.echo(f"{server.url}  shows {printable(file)} as it grows; Ctrl-C ends it")
    with suppress(KeyboardInterrupt):  # which is how it ends
        server.run()


def _may_have_rows(path: Path) -> bool:
    """Whether a path is a database, or may become one."""
    if not path.exists():
        return True
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(6) in (b"", b"SQLite")


def stamp(file: str) -> str:
    """Return what changes when rows are added: sizes and times of the file and its journal."""
    found = []
    for path in (Path(file), Path(f"{file}-wal")):
        try:
            about = path.stat()
            found.append(f"{about.st_size}.{about.st_mtime_ns}")
        except OSError:
            found.append("")
    return " ".join(found)
