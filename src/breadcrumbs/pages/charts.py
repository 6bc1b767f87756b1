"""Charts as specifications of Vega-Lite, made of plain numbers; colours by the names of `theme`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from breadcrumbs.pages.page import Choice, Figure, Table
from breadcrumbs.pages.theme import CONFIG, DIVERGING, SEQUENCE

#: The least that the strongest colours stand for, so that next to nothing looks like it.
FAINT = {"cosine": 0.2, "share": 0.1}
#: Pixels of a row of a heat map, of an ordinary chart, and of a wide one in a paper.
ROW, HEIGHT, WIDTH = 22, 280, 640
Record = Mapping[str, Any]


#: Whether the name of a cut has room to the right of its line.
_ROOM = "datum.side === 'right' && scale('x', datum.at) < width - 64"


def spec(**parts: Any) -> dict[str, Any]:
    """Return a specification with what all have in common."""
    return {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": CONFIG} | {
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        **parts,
    }


def field(name: str, title: str | None, kind: str = "quantitative", **more: Any) -> dict[str, Any]:
    """Return the encoding of a field."""
    return {"field": name, "type": kind, "title": title, **more}


def chosen(choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the parameters and filters by which the reader's choices select records, whose fields
    have the names of the signals."""
    if not choices:
        return {}
    params = [{"name": c.signal, "value": c.options[0][0]} for c in choices]
    return {
        "params": params,
        "transform": [{"filter": f"datum.{c.signal} === {c.signal}"} for c in choices],
    }


def heat(
    name: str,
    title: str,
    says: str,
    records: Sequence[Record],
    *,
    x: tuple[str, Sequence[str]],
    y: tuple[str, Sequence[str]],
    value: tuple[str, str],
    tips: Sequence[tuple[str, str, str]],
    table: Table,
    choices: Sequence[Choice] = (),
    colours: Sequence[str] = SEQUENCE,
    zero: bool = True,
    log: bool = False,
    middle: float | None = None,
) -> Figure:
    """Return a heat map. records: with fields ``x``, ``y``, ``value`` (None for an empty cell),
    those of the tips and of the choices.

    x, y: title and order of the values. value: title and format. tips: field, title, format (empty
    for text). zero: whether the first colour is that of 0. log: whether colours are of orders of
    magnitude. middle: where colours diverge.
    """
    scale: dict[str, Any] = {"range": list(colours), "interpolate": "lab", "zero": zero}
    if log:
        scale = {"range": list(colours), "interpolate": "lab", "type": "log"}
    if middle is not None:
        known = [record["value"] for record in records if record["value"] is not None]
        reach = max([FAINT["share"], *(abs(value - middle) for value in known)])
        domain = [middle - reach, middle + reach]
        scale = {"range": list(colours), "interpolate": "lab", "domain": domain}
    made = spec(
        data={"values": [dict(record) for record in records]},
        height={"step": ROW},
        mark={"type": "rect", "stroke": "@paper", "strokeWidth": 1, "cornerRadius": 2},
        encoding={
            "x": field("x", x[0], "nominal", sort=list(x[1]), axis=few_labels()),
            "y": field("y", y[0] or None, "nominal", sort=list(y[1]), axis=bare()),
            "color": field(
                "value",
                value[0],
                scale=scale,
                legend={"format": value[1], "titleLimit": 260, "tickCount": 3},
                condition={"test": "!isValid(datum.value)", "value": "@empty"},
            ),
            "tooltip": [
                field("y", y[0] or "part", "nominal"),
                field("x", x[0], "nominal"),
                *(
                    field(f, t, format=form) if form else field(f, t, "nominal")
                    for f, t, form in tips
                ),
            ],
        },
        **chosen(choices),
    )
    return Figure(name, title, says, made, table, choices)


def matrix(
    name: str,
    title: str,
    says: str,
    labels: Sequence[str],
    tables: Mapping[str, Sequence[Sequence[float]]],
    *,
    value: str,
    form: str = ".2f",
) -> Figure:
    """Return a matrix (T, T) of each of ``tables``, among which the reader chooses.

    Numbers stand in the cells of a small one. Colours diverge at 0; the diagonal has none.
    """
    records, off = [], 0.0
    for which, rows in tables.items():
        for i, first in enumerate(labels):
            for j, second in enumerate(labels):
                number = float(rows[i][j])
                if i != j:
                    off = max(off, abs(number))
                cell = {"which": which, "first": first, "second": second, "value": number}
                records.append({**cell, "same": i == j, "strong": False})
    reach = max(off, FAINT["cosine"])
    for record in records:
        record["strong"] = not record["same"] and abs(record["value"]) > 0.62 * reach
    choices = [Choice("which", "Task vectors", [(key, key) for key in tables])]
    picked = chosen(choices if len(tables) > 1 else [])
    position = {
        "x": field("second", None, "nominal", sort=list(labels), axis=bare(-30)),
        "y": field("first", None, "nominal", sort=list(labels), axis=bare()),
    }
    domain = {"domain": [-reach, reach], "range": DIVERGING, "interpolate": "lab"}
    legend = {"format": form, "titleLimit": 220, "tickCount": 3}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect", "stroke": "@paper", "strokeWidth": 2, "cornerRadius": 3},
            "encoding": {
                "color": field(
                    "value",
                    value,
                    scale=domain,
                    legend=legend,
                    condition={"test": "datum.same", "value": "@empty"},
                ),
                "tooltip": [
                    field("first", "model", "nominal"),
                    field("second", "and", "nominal"),
                    field("value", value, format=".4f"),
                ],
            },
        }
    ]
    if len(labels) <= 12:
        strong = {"test": "datum.strong", "value": "@paper"}
        layers.append(
            {
                "mark": {"type": "text", "fontSize": 12},
                "encoding": {
                    "text": field("value", None, format=form),
                    "color": {"value": "@ink", "condition": strong},
                },
            }
        )
    made = spec(
        data={"values": records},
        height={"step": max(26, min(46, 400 // max(1, len(labels))))},
        layer=[{**layer, "encoding": {**position, **layer["encoding"]}} for layer in layers],
        **picked,
    )
    rows = [
        (first, second, *(float(rows[i][j]) for rows in tables.values()))
        for i, first in enumerate(labels)
        for j, second in enumerate(labels)
        if i < j
    ]
    named = tuple(f"{value}, {key}" if len(tables) > 1 else value for key in tables)
    table = Table(("model", "and", *named), rows)
    return Figure(name, title, says, made, table, choices if len(tables) > 1 else ())


def histogram(
    name: str,
    title: str,
    says: str,
    records: Sequence[Record],
    cuts: Sequence[Record],
    *,
    x: str,
    y: str,
    choices: Sequence[Choice],
    table: Table,
) -> Figure:
    """Return a histogram over a logarithmic axis, of what is kept and what is cut.

    records: ``from`` and ``to`` of a bin, ``low`` and ``high`` of its bar, ``kind`` (kept,
    cut off), ``share``, and the fields of the choices. cuts: ``at``, ``side`` (left, right),
    ``short`` and ``text`` of lines that are drawn in, and the fields of the choices.
    """
    picked = chosen(choices)
    log = {"type": "log", "nice": False}
    colour = field("kind", None, "nominal", legend={"title": None})
    colour["scale"] = {"domain": ["kept", "cut off"], "range": ["@kept", "@cut"]}
    bars = {
        "data": {"values": [dict(record) for record in records]},
        "transform": picked.get("transform", []),
        "mark": {"type": "rect", "stroke": "@paper", "strokeWidth": 0.5},
        "encoding": {
            "x": field("from", x, scale=log, axis={"format": ".0e", "tickCount": 6, "grid": False}),
            "x2": {"field": "to"},
            "y": field("low", y, axis={"format": ".0%", "tickCount": 5}),
            "y2": {"field": "high"},
            "color": colour,
            "tooltip": [
                field("from", "from", format=".2e"),
                field("to", "to", format=".2e"),
                field("kind", "", "nominal"),
                field("share", "share", format=".3%"),
            ],
        },
    }
    layers = [bars]
    if cuts:
        data = {"values": [dict(cut) for cut in cuts]}
        filters = picked.get("transform", [])
        place = {"x": field("at", x, scale=log)}
        layers += [
            {
                "data": data,
                "transform": filters,
                "mark": {"type": "rule", "strokeWidth": 2, "strokeDash": [5, 4], "color": "@line"},
                "encoding": {**place, "tooltip": [field("text", "cut", "nominal")]},
            },
            {
                "data": data,
                "transform": filters,
                "mark": {
                    "type": "text",
                    "align": {"expr": f"{_ROOM} ? 'left' : 'right'"},
                    "dx": {"expr": f"{_ROOM} ? 6 : -6"},
                    "y": {"expr": f"datum.side === 'right' && !({_ROOM}) ? 26 : 8"},
                    "color": "@line",
                    "fontWeight": 600,
                },
                "encoding": {**place, "text": field("short", None, "nominal")},
            },
        ]
    made = spec(height=HEIGHT, layer=layers, params=picked.get("params", []))
    return Figure(name, title, says, made, table, choices)


def magnitude(edge: int) -> float:
    """Return the magnitude at which the bin of that number begins: four in each power of two."""
    return math.ldexp(1 + (edge % 4) / 4, edge // 4)


def bare(angle: float = 0) -> dict[str, Any]:
    """Return an axis of names alone."""
    return {"domain": False, "ticks": False, "labelAngle": angle, "labelPadding": 6}


def few_labels() -> dict[str, Any]:
    """Return the same, without the names for which there is no room."""
    return {**bare(), "labelOverlap": True}
