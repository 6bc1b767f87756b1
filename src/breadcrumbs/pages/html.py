"""A page as one HTML file, which loads nothing from anywhere."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from breadcrumbs.pages import drawing, theme
from breadcrumbs.pages.page import Cell, Page
from breadcrumbs.version import __version__

HERE = Path(__file__).parent
#: What stands in a table where there is nothing.
NOTHING = "\N{EN DASH}"
#: What tells a page of ours from other files.
MARK = '<meta name="generator" content="breadcrumbs'


def to_html(page: Page, live: str | None = None) -> str:
    """Return a page. live: what it is of, if it asks the server that it came from for another."""
    script = drawing.script() if page.figures or live is not None else ""
    code = (HERE / "page.js").read_text(encoding="utf-8")
    scripts = [text for text in (script, code) if text]
    policy = [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        f"script-src {' '.join(map(_digest, scripts))}",
    ]
    if live is not None:
        policy.append("connect-src 'self'")
    return _template().render(
        page=page,
        version=__version__,
        policy="; ".join(policy),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        light=theme.variables(dark=False),
        dark=theme.variables(dark=True),
        scripts=scripts,
        licence=drawing.licence() if script else "",
        colours={name: list(pair) for name, pair in theme.COLOURS.items()},
        compiled=drawing.compiled,
        live=live,
    )


def _digest(script: str) -> str:
    """Return the digest by which a policy knows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def shown(cell: Cell) -> str:
    """Return a cell of a table as text."""
    if cell is None:
        return NOTHING
    if isinstance(cell, float):
        return f"{cell:.4g}" if cell == cell else NOTHING
    return f"{cell:,}" if isinstance(cell, int) else cell


@functools.cache
def _template() -> Any:
    jinja = drawing.library("jinja2")
    made = jinja.Environment(
        loader=jinja.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["shown"] = shown
    return made.get_template("page.html.j2")
