"""Charts as specifications of Vega-Lite, made of plain numbers; colours by the names of `theme`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from breadcrumbs.pages.page import Cell, Choice, Figure, Table
from breadcrumbs.pages.theme import CONFIG, DIVERGING, SEQUENCE

#: Pixels of a row of a heat map, of an ordinary chart, and of a wide one in a paper.
ROW, HEIGHT, WIDTH = 22, 280, 640
Record = Mapping[str, Any]


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
    middle: float | None = None,
) -> Figure:
    """Return a heat map. records: with fields ``x``, ``y``, ``value`` (None for an empty cell),
    those of the tips and of the choices.

    x, y: title and order of the values. value: title and format. tips: field, title, format (empty
    for text). zero: whether the first colour is that of 0. middle: where colours diverge.
    """
    scale: dict[str, Any] = {"range": list(colours), "interpolate": "lab", "zero": zero}
    if middle is not None:
        known = [record["value"] for record in records if record["value"] is not None]
        reach = max((abs(value - middle) for value in known), default=0) or 1
        domain = [middle - reach, middle + reach]
        scale = {"range": list(colours), "interpolate": "lab", "domain": domain}
    made = spec(
        data={"values": [dict(record) for record in records]},
        height={"step": ROW},
        mark={"type": "rect", "stroke": "@paper", "strokeWidth": 1, "cornerRadius": 2},
        encoding={
            "x": field("x", x[0], "nominal", sort=list(x[1]), axis=_few_labels()),
            "y": field("y", y[0] or None, "nominal", sort=list(y[1]), axis=_bare()),
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
    reach = off or 1.0
    for record in records:
        record["strong"] = not record["same"] and abs(record["value"]) > 0.62 * reach
    choices = [Choice("which", "Task vectors", [(key, key) for key in tables])]
    picked = chosen(choices if len(tables) > 1 else [])
    position = {
        "x": field("second", None, "nominal", sort=list(labels), axis=_bare(-30)),
        "y": field("first", None, "nominal", sort=list(labels), axis=_bare()),
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
    cut off), ``share``, and the fields of the choices. cuts: ``at``, ``side`` (left, right), ``short`` and
    ``text`` of lines that are drawn in, and the fields of the choices.
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
                    "align": {"expr": "datum.side === 'right' ? 'left' : 'right'"},
                    "dx": {"expr": "datum.side === 'right' ? 6 : -6"},
                    "y": 8,
                    "color": "@line",
                    "fontWeight": 600,
                },
                "encoding": {**place, "text": field("short", None, "nominal")},
            },
        ]
    made = spec(height=HEIGHT, layer=layers, params=picked.get("params", []))
    return Figure(name, title, says, made, table, choices)


def bars(
    name: str,
    title: str,
    says: str,
    rows: Sequence[tuple[str, float, float | None]],
    *,
    label: str,
    value: str,
    form: str,
    from_zero: bool = True,
    error: str = "one standard error",
) -> Figure:
    """Return bars, one a row (label, value, standard error or None), in the order given."""
    records = [
        {"label": name, "value": number, "error": stderr}
        | ({"low": number - stderr, "high": number + stderr} if stderr is not None else {})
        for name, number, stderr in rows
    ]
    y = field("label", None, "nominal", sort=[row[0] for row in rows], axis=_bare())
    x = field("value", value, axis={"format": form, "tickCount": 5}, scale={"zero": from_zero})
    tips = [field("label", label, "nominal"), field("value", value, format=form)]
    if any(row[2] is not None for row in rows):
        tips.append(field("error", error, format=form))
    mark = {"type": "bar", "height": {"band": 0.68}, "color": "@kept", "cornerRadiusEnd": 3}
    layers: list[dict[str, Any]] = [{"mark": mark, "encoding": {"x": x, "y": y, "tooltip": tips}}]
    if not any(row[2] is not None for row in rows):
        text = {"type": "text", "align": "left", "dx": 6, "color": "@muted"}
        encoding = {"x": x, "y": y, "text": field("value", None, format=form)}
        layers.append({"mark": text, "encoding": encoding})
    else:
        encoding = {"x": field("low", value), "x2": {"field": "high"}, "y": y}
        rule = {"type": "rule", "strokeWidth": 2, "color": "@ink"}
        layers.append({"mark": rule, "encoding": encoding})
    made = spec(data={"values": records}, height={"step": 26}, layer=layers)
    return Figure(name, title, says, made, Table((label, value), [row[:2] for row in rows]))


def curves(
    name: str,
    title: str,
    says: str,
    points: Sequence[tuple[str, float, float]],
    *,
    x: str,
    y: str,
    series: str,
    form: str = ".1%",
    best: bool = True,
    step: bool = False,
    dots: str = "",
) -> Figure:
    """Return a line through the points (series, x, y) of each series; a ring at the highest.

    dots: the series that is drawn as dots alone.
    """
    records = [{"series": s, "x": a, "y": b} for s, a, b in points]
    several = len({point[0] for point in points}) > 1
    colour = field(
        "series", None, "nominal", sort=None, legend={"title": None} if several else None
    )
    encoding = {
        "x": field("x", x, scale={"zero": False, "nice": True}, axis={"grid": False}),
        "y": field("y", y, scale={"zero": False}, axis={"format": form, "tickCount": 6}),
        "color": colour,
        "tooltip": [
            field("series", series, "nominal"),
            field("x", x),
            field("y", y, format=form if form != ".1%" else ".2%"),
        ],
    }
    mark: dict[str, Any] = {
        "type": "line",
        "strokeWidth": 2.5,
        "point": {"size": 40, "filled": True},
    }
    if step:
        mark["interpolate"] = "step-after"
    layers: list[dict[str, Any]] = [{"mark": mark, "encoding": encoding}]
    if dots:
        first = {"filter": {"field": "series", "oneOf": [dots]}}
        others = {"filter": {"not": first["filter"]}}
        dot = {"type": "circle", "size": 45, "opacity": 0.85}
        layers = [{"mark": dot, "encoding": encoding, "transform": [first]}]
        line = {"type": "line", "strokeWidth": 2.5, "interpolate": "step-after"}
        layers.append({"mark": line, "encoding": encoding, "transform": [others]})
    if best and records:
        ring = {"type": "point", "size": 190, "filled": False, "strokeWidth": 2, "color": "@line"}
        top = max(records, key=lambda record: record["y"])
        place = {key: encoding[key] for key in ("x", "y")}
        layers.append({"data": {"values": [top]}, "mark": ring, "encoding": place})
    made = spec(data={"values": records}, height=HEIGHT, layer=layers)
    return Figure(name, title, says, made, Table((series, x, y), points))


def scatter(
    name: str,
    title: str,
    says: str,
    points: Sequence[tuple[str, float, float, bool]],
    *,
    x: str,
    y: str,
    label: str,
    x_form: str = ".1%",
    y_form: str = ".1%",
    falling: bool = True,
) -> Figure:
    """Return points (label, x, y, whether none beats it), and a line along those that none beats.

    falling: whether the front falls to the right, as where more of both is better.
    """
    records = [
        {"label": n, "x": a, "y": b, "on": "not beaten" if on else "beaten"}
        for n, a, b, on in points
    ]
    front = sorted((r for r in records if r["on"] == "not beaten"), key=lambda r: (r["x"], -r["y"]))
    place = {
        "x": field("x", x, scale={"zero": False}, axis={"format": x_form, "tickCount": 6}),
        "y": field("y", y, scale={"zero": False}, axis={"format": y_form, "tickCount": 6}),
    }
    colour = field("on", None, "nominal", legend={"title": None})
    colour["scale"] = {"domain": ["not beaten", "beaten"], "range": ["@line", "@cut"]}
    tips = [
        field("label", label, "nominal"),
        field("x", x, format=x_form),
        field("y", y, format=y_form),
    ]
    line = {"type": "line", "interpolate": "step-before" if falling else "step-after"}
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": front},
            "mark": {**line, "color": "@line", "strokeWidth": 2, "strokeDash": [4, 3]},
            "encoding": place,
        },
        {
            "mark": {"type": "circle", "size": 70, "opacity": 1, "stroke": "@paper"},
            "encoding": {
                **place,
                "color": colour,
                "order": field("on", None, "nominal", sort="ascending"),
                "tooltip": tips,
            },
        },
    ]
    named = [r for r in front if len(front) <= 8]
    if named:
        text = {"type": "text", "align": "left", "dx": 8, "dy": -7, "limit": 150, "fontSize": 11}
        encoding = {**place, "text": field("label", None, "nominal")}
        layers.append({"data": {"values": named}, "mark": text, "encoding": encoding})
    made = spec(data={"values": records}, height=HEIGHT, layer=layers)
    rows = [(n, a, b, "yes" if on else "no") for n, a, b, on in points]
    return Figure(name, title, says, made, Table((label, x, y, "not beaten"), rows))


def parallel(
    name: str,
    title: str,
    says: str,
    axes: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell], float]],
    *,
    label: str,
    score: str,
    form: str = ".3f",
) -> Figure:
    """Return parallel coordinates: a line for each row (label, a value on each axis, score).

    Numbers lie on their axis from the lowest to the highest, text in its order; the last axis is
    the score, which also is the colour.
    """
    names = [*axes, score]
    columns = [[row[1][i] for row in rows] for i in range(len(axes))]
    scales = [_scale(column) for column in [*columns, [row[2] for row in rows]]]
    records, ticks = [], []
    ordered = sorted(rows, key=lambda row: row[2])
    for rank, (text, values, number) in enumerate(ordered):
        for axis, cell, (place, _) in zip(names, [*values, number], scales, strict=True):
            if cell is not None:
                shown = f"{cell:.4g}" if isinstance(cell, int | float) else str(cell)
                records.append(
                    {"axis": axis, "at": place(cell), "row": rank, "label": text}
                    | {"score": number, "value": shown, "best": rank == len(rows) - 1}
                )
    for axis, (place, marks) in zip(names, scales, strict=True):
        ticks += [{"axis": axis, "at": place(mark), "text": text} for mark, text in marks]
    x = field("axis", None, "nominal", sort=names, scale={"type": "point", "padding": 0.3})
    x["axis"] = {
        "labelAngle": 0,
        "domain": False,
        "ticks": False,
        "grid": True,
        "labelFontSize": 12,
    }
    x["axis"] |= {"labelColor": "@ink", "labelPadding": 10, "labelLimit": 110}
    y = {"field": "at", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}}
    ramp = {"range": ["@seq1", "@seq2", "@seq3", "@seq4"], "interpolate": "lab"}
    tips = [
        field("label", label, "nominal"),
        field("axis", "axis", "nominal"),
        field("value", "value", "nominal"),
        field("score", score, format=form),
    ]
    best = {"test": "datum.best", "value": 3.5}
    layers = [
        {
            "data": {"values": records},
            "mark": {"type": "line", "strokeJoin": "round"},
            "encoding": {
                "x": x,
                "y": y,
                "detail": {"field": "row"},
                "order": {"field": "row"},
                "color": field("score", score, scale=ramp, legend={"format": form}),
                "strokeWidth": {"value": 1.4, "condition": best},
                "tooltip": tips,
            },
        },
        {
            "data": {"values": [r for r in records if r["best"]]},
            "mark": {"type": "line", "color": "@line", "strokeWidth": 3.5, "point": {"size": 60}},
            "encoding": {"x": x, "y": y, "order": {"field": "row"}, "tooltip": tips},
        },
        {
            "data": {"values": ticks},
            "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 11, "color": "@muted"},
            "encoding": {"x": x, "y": y, "text": {"field": "text"}},
        },
    ]
    del layers[1]["mark"]["point"]
    layers[1]["mark"]["point"] = {"size": 60, "color": "@line", "filled": True}
    made = spec(height=HEIGHT + 40, layer=layers)
    body = [(text, *values, number) for text, values, number in reversed(ordered)]
    return Figure(name, title, says, made, Table((label, *names), body))


def _scale(column: Sequence[Cell]) -> tuple[Any, list[tuple[Cell, str]]]:
    """Return what places a value between 0 and 1, and the marks of the axis: value and text."""
    known = [cell for cell in column if cell is not None]
    if known and all(isinstance(cell, int | float) for cell in known):
        numbers = [float(cell) for cell in known]
        low, high = min(numbers), max(numbers)
        if low == high:
            return (lambda cell: 0.5), [(low, f"{low:.4g}")]
        span = high - low
        marks = [low, (low + high) / 2, high]
        return (lambda cell: (float(cell) - low) / span), [(m, f"{m:.3g}") for m in marks]
    texts = list(dict.fromkeys(map(str, known)))
    places = {text: (i + 0.5) / len(texts) for i, text in enumerate(texts)}
    return (lambda cell: places[str(cell)]), [(text, text) for text in texts]


def magnitude(edge: int) -> float:
    """Return the magnitude at which the bin of that number begins: four in each power of two."""
    return math.ldexp(1 + (edge % 4) / 4, edge // 4)


def _bare(angle: float = 0) -> dict[str, Any]:
    return {"domain": False, "ticks": False, "labelAngle": angle, "labelPadding": 6}


def _few_labels() -> dict[str, Any]:
    return {**_bare(), "labelOverlap": True}
