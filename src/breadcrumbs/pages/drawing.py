"""Figures drawn: compiled for the browser, or as SVG and PNG without one, by vl-convert."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from breadcrumbs.checkpoint import cache
from breadcrumbs.errors import MissingExtraError, install
from breadcrumbs.pages.page import Figure
from breadcrumbs.pages.theme import coloured

#: Version of Vega-Lite that the specifications are written for.
LITE = "6.4"
#: Pixels of a figure in a paper; PNGs have so many times as many.
WIDTH, SCALE = 640, 3.0
#: What the script of a page calls.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


def library(name: str) -> Any:
    """Return a module of the extra ``report``; MissingExtraError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtraError(
            f"Pages and figures need two more packages. {install('report')}"
        ) from None


def compiled(figure: Figure) -> dict[str, Any]:
    """Return the specification of a figure as Vega draws it, colours still by name."""
    return library("vl_convert").vegalite_to_vega(dict(figure.spec), vl_version=LITE)


def script() -> str:
    """Return the code of Vega and Vega-Embed (BSD-3-Clause) that pages carry.

    It is put together once, in seconds, and kept in the cache.
    """
    converter = library("vl_convert")
    where, key = cache.folder(), f"vega-embed-{converter.__version__}-{LITE}"
    kept = cache.read(where, "pages", key)
    if kept is None:
        kept = converter.javascript_bundle(_SNIPPET, vl_version=LITE).encode()
        cache.write(where, "pages", key, kept)
    return kept.decode()


def licence() -> str:
    """Return what must stand beside the code of Vega."""
    version = library("vl_convert").get_vega_version()
    return (
        f"Vega {version} and Vega-Embed, Copyright (c) University of Washington Interactive Data"
        " Lab, BSD-3-Clause"
    )


def svg(figure: Figure) -> str:
    """Return a figure as SVG, dark on white, as it is shown before the reader chooses anything."""
    return library("vl_convert").vegalite_to_svg(_paper(figure.spec), vl_version=LITE)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, as `svg` draws it."""
    convert = library("vl_convert").vegalite_to_png
    return convert(_paper(figure.spec), vl_version=LITE, scale=SCALE)


def _paper(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification with a width and colours of its own."""
    made = coloured({**spec, "width": WIDTH, "autosize": {"type": "pad"}})
    made["config"]["background"] = "white"
    return made
