"""Pages and figures as files, which are there whole or not at all."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from breadcrumbs.checkpoint import whole
from breadcrumbs.errors import OutputError, suggestion
from breadcrumbs.pages import drawing, html
from breadcrumbs.pages.page import Figure, Page

#: What files of ours have near their beginning.
_MADE = "made by breadcrumbs"
_MARKS = (html.MARK.encode(), f"<!-- {_MADE} -->".encode(), f"Software\0{_MADE}".encode())
_NEAR = 8192


def check(path: str | Path, ending: str) -> None:
    """Raise OutputError if a file cannot become a page or figure: before hours of work, not after.

    One that exists is replaced if it is of ours, and nothing else is.
    """
    file = Path(path)
    if file.suffix.lower() != ending:
        raise OutputError(f"{path}: let the name end with {ending}.")
    if not file.absolute().parent.is_dir():
        raise OutputError(f"{path}: there is no folder {file.parent}. Make it first.")
    if file.is_dir():
        raise OutputError(f"{path}: is a folder. Give the name of a file.")
    if file.is_file():
        with open(file, "rb") as opened:
            start = opened.read(_NEAR)
        if start and not any(mark in start for mark in _MARKS):
            raise OutputError(
                f"{path}: exists, and breadcrumbs did not make it. Give another name, or remove it."
            )


def write(page: Page, path: str | Path) -> None:
    """Write a page as HTML; OutputError where that is not possible."""
    check(path, ".html")
    _write(path, html.to_html(page).encode())


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as SVG or PNG, as the name ends; OutputError where that is not possible."""
    file = Path(path)
    check(file, file.suffix.lower() if file.suffix.lower() in (".svg", ".png") else ".svg")
    if file.suffix.lower() == ".svg":
        head, tag, rest = drawing.svg(figure).partition(">")
        _write(path, f"{head}{tag}<!-- {_MADE} -->{rest}".encode())
    else:
        _write(path, _signed(drawing.png(figure)))


def figure_for(page: Page, asked: str) -> tuple[Figure, str]:
    """Return the figure and the file that ``NAME=FILE``, or FILE of that name, asks for."""
    name, equals, path = asked.partition("=")
    if not equals:
        name, path = Path(asked).stem, asked
    figures = page.figures
    if name not in figures:
        raise OutputError(
            f"{asked}: this page has no figure {name!r}.{suggestion(name, list(figures))} Give the"
            f" file the name of one, or NAME=FILE. There are {', '.join(figures) or 'none'}."
        )
    return figures[name], path


def place(asked: str) -> str:
    """Return the file of ``NAME=FILE``, or of FILE."""
    return asked.partition("=")[2] or asked


def write_all(page: Page, path: str | None, figures: Sequence[str]) -> list[str]:
    """Write a page, where a path is given, and the figures asked for; return all files."""
    wanted = [figure_for(page, asked) for asked in figures]
    if path is not None:
        write(page, path)
    for figure, file in wanted:
        write_figure(figure, file)
    return [*([path] if path else []), *(file for _, file in wanted)]


def _signed(data: bytes) -> bytes:
    """Return a PNG that says, in a chunk of text after its head, what made it."""
    text = f"Software\0{_MADE}".encode()
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"tEXt" + text))
    head = 8 + 25  # the signature, and the first chunk
    return data[:head] + chunk + data[head:]


def _write(path: str | Path, data: bytes) -> None:
    try:
        whole.write(Path(path), [data])
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from None
