"""`--html`, `--svg` and `--png` of every command that has something to show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click


class Paging:
    """The pages and figures that a command was asked for.

    wanted: whether there are any. Names of files that cannot be written are refused at once.
    """

    def __init__(self, html: str | None, figures: Sequence[str]):
        self.html, self.figures = html, tuple(figures)

    @property
    def wanted(self) -> bool:
        return self.html is not None or bool(self.figures)

    def check(self) -> None:
        """Refuse, before any work, what would be refused after it."""
        if not self.wanted:
            return
        from pathlib import Path

        from breadcrumbs.pages import drawing, files

        for name in ("jinja2", "vl_convert"):
            drawing.library(name)
        if self.html is not None:
            files.check(self.html, ".html")
        for asked in self.figures:
            place = files.place(asked)
            files.check(place, Path(place).suffix.lower())

    def write(self, page: Any, *, quiet: bool = False) -> None:
        """Write the page and figures, and say where on stderr."""
        from breadcrumbs.errors import printable
        from breadcrumbs.pages import files

        for path in files.write_all(page, self.html, self.figures):
            if not quiet:
                click.echo(f"page: {printable(path)}", err=True)


def page_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--html`, `--svg` and `--png`, given to the function as ``paging``, checked already."""

    def ends(ending: str) -> Callable[..., tuple[str, ...]]:
        def check(_: Any, __: Any, given: tuple[str, ...]) -> tuple[str, ...]:
            for asked in given:
                if not asked.lower().endswith(ending):
                    raise click.BadParameter(f"let {asked!r} end with {ending}")
            return given

        return check

    @click.option("--html", metavar="FILE", help="Write a page of figures, to open in a browser.")
    @click.option(
        "--svg",
        multiple=True,
        metavar="[NAME=]FILE",
        callback=ends(".svg"),
        help="Write one figure of that page, such as cosine.svg. Repeatable.",
    )
    @click.option(
        "--png",
        multiple=True,
        metavar="[NAME=]FILE",
        callback=ends(".png"),
        help="The same as PNG. Repeatable.",
    )
    @functools.wraps(function)
    def run(*args: Any, html: str | None, svg: tuple, png: tuple, **kwargs: Any) -> None:
        paging = Paging(html, [*svg, *png])
        paging.check()
        function(*args, paging=paging, **kwargs)

    return run
