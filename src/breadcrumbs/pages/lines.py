"""Charts of lines, bars and points, as `charts` makes heat maps and histograms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from breadcrumbs.pages.charts import HEIGHT, bare, field, spec
from breadcrumbs.pages.page import Cell, Figure, Table


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
    colours: Sequence[str] = (),
) -> Figure:
    """Return bars, one a row (label, value, standard error or None), in the order given.

    colours: of each row, by name.
    """
    colours = colours or ["@kept"] * len(rows)
    records = [
        {"label": name, "value": number, "error": stderr, "colour": colour}
        | ({"low": number - stderr, "high": number + stderr} if stderr is not None else {})
        for (name, number, stderr), colour in zip(rows, colours, strict=True)
    ]
    y = field("label", None, "nominal", sort=[row[0] for row in rows], axis=bare())
    x = field("value", value, axis={"format": form, "tickCount": 5}, scale={"zero": from_zero})
    tips = [field("label", label, "nominal"), field("value", value, format=form)]
    if any(row[2] is not None for row in rows):
        tips.append(field("error", error, format=form))
    mark = {"type": "bar", "height": {"band": 0.68}, "cornerRadiusEnd": 3}
    colour = field("colour", None, "nominal", scale=None, legend=None)
    encoding = {"x": x, "y": y, "tooltip": tips, "color": colour}
    layers: list[dict[str, Any]] = [{"mark": mark, "encoding": encoding}]
    room: dict[str, Any] = {}
    if not any(row[2] is not None for row in rows):
        text = {"type": "text", "align": "left", "dx": 6, "color": "@muted"}
        encoding = {"x": x, "y": y, "text": field("value", None, format=form)}
        layers.append({"mark": text, "encoding": encoding})
        room = {"padding": {"left": 4, "top": 4, "right": 48, "bottom": 4}}  # for the last number
    else:
        encoding = {"x": field("low", value), "x2": {"field": "high"}, "y": y}
        rule = {"type": "rule", "strokeWidth": 2, "color": "@ink"}
        layers.append({"mark": rule, "encoding": encoding})
    made = spec(data={"values": records}, height={"step": 26}, layer=layers, **room)
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
    whole: bool = False,
    dots: str = "",
) -> Figure:
    """Return a line through the points (series, x, y) of each series; a ring at the highest.

    whole: whether there are no values between whole numbers of x. dots: the series that is drawn
    as dots alone.
    """
    records = [{"series": s, "x": a, "y": b} for s, a, b in points]
    several = len({point[0] for point in points}) > 1
    colour = field(
        "series", None, "nominal", sort=None, legend={"title": None} if several else None
    )
    encoding = {
        "x": field(
            "x",
            x,
            scale={"zero": False, "nice": True},
            axis={"grid": False} | ({"tickMinStep": 1, "format": "d"} if whole else {}),
        ),
        "y": field(
            "y",
            y,
            scale={"zero": False},
            axis={"format": form, "tickCount": 6} | ({"tickMinStep": 1} if form == "d" else {}),
        ),
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
    ends = [front[-1]] + ([front[0]] if front[0]["y"] > front[-1]["y"] else []) if front else []
    for end, dy in zip(ends, (16, -10), strict=False):  # the best to the right, and the highest
        text = {"type": "text", "align": "right", "dx": -6, "dy": dy, "limit": 300, "fontSize": 11}
        encoding = {**place, "text": field("label", None, "nominal")}
        layers.append({"data": {"values": [end]}, "mark": text, "encoding": encoding})
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

    Numbers lie on their axis from the lowest to the highest, text in its order. The last axis is
    the score; the colour is the rank by it.
    """
    names = [*axes, "score"]
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
                    | {"rank": rank / max(1, len(rows) - 1)}
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
    dot = {"size": 60, "color": "@line", "filled": True}
    layers = [
        {
            "data": {"values": records},
            "mark": {"type": "line", "strokeJoin": "round"},
            "encoding": {
                "x": x,
                "y": y,
                "detail": {"field": "row"},
                "order": {"field": "row"},
                "color": field("rank", None, scale=ramp, legend=None),
                "opacity": field("rank", None, scale={"range": [0.35, 0.9]}, legend=None),
                "strokeWidth": {"value": 1.4, "condition": best},
                "tooltip": tips,
            },
        },
        {
            "data": {"values": [r for r in records if r["best"]]},
            "mark": {"type": "line", "color": "@line", "strokeWidth": 3.5, "point": dot},
            "encoding": {"x": x, "y": y, "order": {"field": "row"}, "tooltip": tips},
        },
    ]
    for outline in ({"stroke": "@paper", "strokeWidth": 4}, {}):  # so that lines leave it legible
        text = {
            "type": "text",
            "align": "left",
            "dx": 6,
            "fontSize": 11,
            "color": "@ink",
            **outline,
        }
        encoding = {"x": x, "y": y, "text": {"field": "text"}}
        layers.append({"data": {"values": ticks}, "mark": text, "encoding": encoding})
    made = spec(height=HEIGHT + 40, layer=layers)
    body = [(text, *values, number) for text, values, number in reversed(ordered)]
    return Figure(name, title, says, made, Table((label, *names), body))


def _scale(column: Sequence[Cell]) -> tuple[Callable[[Cell], float], list[tuple[Cell, str]]]:
    """Return what places a value between 0 and 1, and the marks of the axis: value and text."""
    known = [cell for cell in column if cell is not None]
    if known and all(isinstance(cell, int | float) for cell in known):
        numbers = [float(cell) for cell in known]
        low, high = min(numbers), max(numbers)
        if low == high:
            return (lambda cell: 0.5), [(low, f"{low:.4g}")]
        span = high - low
        marks = [low, (low + high) / 2, high]
        return (lambda cell: (float(cell or 0) - low) / span), [(m, f"{m:.3g}") for m in marks]
    texts = list(dict.fromkeys(map(str, known)))
    places = {text: (i + 0.5) / len(texts) for i, text in enumerate(texts)}
    return (lambda cell: places[str(cell)]), [(text, text) for text in texts]
