"""The colours and letters of pages and figures, light and dark.

Text has a contrast of 4.5 to 1 or more with what it stands on. The colours of series can be told
apart by people who see no red or no green (Okabe and Ito, "Color Universal Design", 2008, whose
order they keep; lightened or darkened for the background).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: By name: on a light background, on a dark one.
COLOURS = {
    "paper": ("#ffffff", "#14181f"),
    "ink": ("#1b2330", "#e8ecf2"),
    "muted": ("#56617a", "#a3afc2"),
    "grid": ("#e3e7ee", "#2b3340"),
    "accent": ("#0b6bcb", "#58b0ff"),
    "warm": ("#c2410c", "#ff9a5c"),
    "cut": ("#c9d1dd", "#47525f"),
    "kept": ("#0b6bcb", "#4aa3f5"),
    "line": ("#c2410c", "#ffb37a"),
    "empty": ("#f1f3f7", "#1e242d"),
    "seq0": ("#f3f7fc", "#1a222e"),
    "seq1": ("#c5ddf2", "#173f66"),
    "seq2": ("#7fb4de", "#1f68a5"),
    "seq3": ("#2f7fc0", "#3f9be0"),
    "seq4": ("#0b4d8c", "#8fcbff"),
    "seq5": ("#06284d", "#e3f3ff"),
    "low1": ("#9c3d0a", "#ff9a5c"),
    "low0": ("#f6b98a", "#7a4222"),
    "mid": ("#f4f5f8", "#232a35"),
    "high0": ("#8fbfe6", "#235787"),
    "high1": ("#0b4d8c", "#6bbcff"),
    "s0": ("#0b6bcb", "#58b0ff"),
    "s1": ("#c2410c", "#ff9a5c"),
    "s2": ("#00795c", "#3fcf9f"),
    "s3": ("#a03b7d", "#ef9fd0"),
    "s4": ("#8a6a00", "#e5c04a"),
    "s5": ("#3b4a63", "#b5c3d9"),
    "s6": ("#5b3fb8", "#b7a4ff"),
    "s7": ("#0f7c8a", "#6fd6e3"),
}
SEQUENCE = [f"@seq{i}" for i in range(6)]
DIVERGING = ["@low1", "@low0", "@mid", "@high0", "@high1"]
SERIES = [f"@s{i}" for i in range(8)]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

#: What every chart looks like.
CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "@muted",
        "titleColor": "@ink",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "titlePadding": 10,
        "gridColor": "@grid",
        "domainColor": "@grid",
        "tickColor": "@grid",
        "labelLimit": {"expr": "containerSize()[0] < 500 ? 120 : 340"},
    },
    "legend": {
        "labelColor": "@muted",
        "titleColor": "@ink",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "orient": "top",
        "direction": "horizontal",
        "gradientLength": 140,
        "gradientThickness": 10,
        "labelLimit": 280,
        "columns": 2,
    },
    "header": {"labelColor": "@ink", "titleColor": "@ink", "labelFontSize": 12},
    "text": {"font": FONT, "fontSize": 12, "color": "@ink"},
    "range": {"category": SERIES, "heatmap": SEQUENCE, "ramp": SEQUENCE},
}


def coloured(spec: Mapping[str, Any], dark: bool = False) -> dict[str, Any]:
    """Return a specification with colours for their names."""
    text = json.dumps(spec)
    for name, pair in COLOURS.items():
        text = text.replace(f'"@{name}"', f'"{pair[dark]}"')
    return json.loads(text)


def variables(dark: bool) -> str:
    """Return the colours as declarations of CSS."""
    return " ".join(f"--{name}: {pair[dark]};" for name, pair in COLOURS.items())
