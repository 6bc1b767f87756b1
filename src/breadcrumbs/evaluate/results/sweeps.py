"""Figures of many settings of one merge: curves, parallel coordinates, what none beats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from breadcrumbs.evaluate.results.tables import Line, Table
from breadcrumbs.pages import lines
from breadcrumbs.pages.page import Figure

#: A setting of a method's parameter.
Value = str | int | float | None
#: Settings that make a curve, and parallel coordinates.
CURVE, PARALLEL = 3, 4
#: Lines of parallel coordinates at most, the best.
LINES = 400
#: Axes at most, those of the most values.
AXES = 7


@dataclass(frozen=True)
class Point:
    """A merge that was scored. settings: its parameters, and the method. score: what is compared.
    values: of each task. normalised: whether the values are."""

    label: str
    settings: Mapping[str, Value]
    score: float
    values: Mapping[str, float]


def points(table: Table) -> list[Point]:
    """Return what is a merge with a known recipe in a table, scored on all of its tasks."""
    found = []
    for line in table.lines:
        settings, score = settings_of(line), table.normalised(line) or table.mean(line)
        if settings is None or score is None:
            continue
        normalised = {task: table.normalised_cell(line, task) for task in table.tasks}
        raw = {task: table.cell(line, task) for task in table.tasks}
        cells = raw if None in normalised.values() else normalised
        values = {task: one.value for task, one in cells.items() if one is not None}
        found.append(Point(line.name, settings, score.value, values))
    return found


def settings_of(line: Line) -> dict[str, Value] | None:
    """Return the method and parameters of a merge; None for what is none."""
    text = next((row.recipe for row in line.rows.values() if row.recipe), None)
    if text is None:
        return None
    recipe = json.loads(text)
    return numbered({"method": recipe.get("method", "breadcrumbs"), **recipe.get("parameters", {})})


def numbered(settings: Mapping[str, object]) -> dict[str, Value]:
    """Return settings with numbers for texts that are some."""
    found: dict[str, Value] = {}
    for key, value in settings.items():
        try:
            found[key] = value if isinstance(value, int | float) else float(str(value))
        except ValueError:
            found[key] = None if value is None else str(value)
    return found


def figures(points: Sequence[Point], score: str) -> list[Figure]:
    """Return the figures that so many points make. score: what their scores are called."""
    found = [history([point.score for point in points], score)] if len(points) >= PARALLEL else []
    for key in ("alpha", *sorted(varying(points) - {"alpha", "method"})):
        curve = along(points, key, score)
        if curve is not None:
            found.append(curve)
    if len(points) >= PARALLEL and len(varying(points)) > 1:
        found.append(sweep(points, score))
    if len(points) > 1 and all(len(point.values) > 1 for point in points):
        found.append(pareto([(p.label, p.values, p.score) for p in points], score))
    return found


def history(scores: Sequence[float], score: str) -> Figure:
    """Return each score, in the order of scoring, and the best so far."""
    best, rows = float("-inf"), []
    for number, one in enumerate(scores):
        best = max(best, one)
        rows += [("this trial", number, one), ("best so far", number, best)]
    return lines.curves(
        "history",
        "Trial after trial",
        "Dots are trials, the line is the best so far. Where it is flat at the end, more trials"
        " find little.",
        rows,
        x="trial",
        y=score,
        series="line",
        form=".3f",
        dots="this trial",
        whole=True,
    )


def varying(points: Sequence[Point]) -> set[str]:
    """Return the names of the settings that differ."""
    names = {key for point in points for key in point.settings}
    return {key for key in names if len({p.settings.get(key) for p in points}) > 1}


def along(points: Sequence[Point], key: str, score: str) -> Figure | None:
    """Return the scores along one parameter: a line for all points that differ in it alone.

    None where no line has `CURVE` points.
    """
    groups: dict[tuple, list[Point]] = {}
    names = sorted(varying(points) - {key})
    for point in points:
        if isinstance(point.settings.get(key), int | float):
            groups.setdefault(tuple(point.settings.get(name) for name in names), []).append(point)
    rows: list[tuple[str, float, float]] = []
    for settings, mine in groups.items():
        best = {float(p.settings[key] or 0): p.score for p in sorted(mine, key=lambda p: p.score)}
        if len(best) >= CURVE:
            text = said(dict(zip(names, settings, strict=True))) or str(mine[0].settings["method"])
            rows += [(text, x, best[x]) for x in sorted(best)]
    if not rows:
        return None
    several = " Each line is one choice of all else." if len({row[0] for row in rows}) > 1 else ""
    return lines.curves(
        f"{_slug(key)}-curve",
        f"Score along {key}",
        f"How the score changes with {key}; higher is better. The ring marks the best.{several}",
        rows,
        x=key,
        y=score,
        series="setting",
        form=".3f",
    )


def sweep(points: Sequence[Point], score: str) -> Figure:
    """Return parallel coordinates of the best `LINES` points, along what differs among them."""
    best = sorted(points, key=lambda point: -point.score)[:LINES]
    values = {key: {p.settings.get(key) for p in best} - {None} for key in varying(best)}
    names = sorted((key for key in values if len(values[key]) > 1), key=lambda k: -len(values[k]))
    axes = sorted(names[:AXES], key=lambda key: (key != "method", key))
    return lines.parallel(
        "sweep",
        "All settings at once",
        "Each line is one setting that was tried, and crosses each axis at its value there."
        " Stronger lines score higher, and the thick one is the best. Where good lines meet, the"
        " parameter matters; where they spread, it does not.",
        axes,
        [(point.label, [point.settings.get(axis) for axis in axes], point.score) for point in best],
        label="setting",
        score=score,
    )


def pareto(rows: Sequence[tuple[str, Mapping[str, float], float]], score: str) -> Figure:
    """Return the worst task against the score of each row: label, values by task, score."""
    worst = [(label, min(values.values()), mean) for label, values, mean in rows]
    made = [
        (
            label,
            low,
            mean,
            not any(a >= low and b >= mean and (a, b) != (low, mean) for _, a, b in worst),
        )
        for label, low, mean in worst
    ]
    return lines.scatter(
        "pareto",
        "Best on average, or best at worst",
        "To the right is a better worst task, upwards a better score over all. Of the points on the"
        " line none is beaten in both at once: choose among these.",
        made,
        x="worst task",
        y=score,
        label="setting",
        x_form=".3f",
        y_form=".3f",
    )


def said(settings: Mapping[str, Value]) -> str:
    """Return settings in words: ``ties alpha 0.9, density 0.2``."""
    method = settings.get("method")
    rest = ", ".join(
        f"{key} {value:g}" if isinstance(value, int | float) else f"{key} {value}"
        for key, value in settings.items()
        if key != "method" and value is not None
    )
    return " ".join(str(part) for part in (method, rest) if part)


def _slug(key: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in key).strip("-") or "parameter"
