"""Tables of what `experiments.paper.frontier` measured: of one suite, and of all side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from experiments.paper.contenders import CONTENDERS, Contender
from experiments.paper.tables import markdown, parameters, percent

#: What a column is called besides its suite, in the order in which columns stand.
ORDER = ("text8", "text20", "wordnet200", "lm6", "lm6 adapters", "demo")

#: Numbers of tasks that are looked at, where they are not all.
SIZES = {"text20": (14, 20), "wordnet200": (10, 50)}
#: How many contenders, the first ones, docs/choosing.md shows.
LEADERS = 13


@dataclass(frozen=True)
class Column:
    """What was measured of a suite with so many tasks.

    cells: by method, what each seed gave, empty where it gave nothing.
    """

    suite: str
    tasks: int
    seeds: int
    ends: Sequence[Mapping[str, Any]]
    cells: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.suite.partition(',')[0]}, {self.tasks}"

    def values(self, name: str, part: str, which: int = 0) -> list[float]:
        """Return what seeds scored. which: 0 normalised, 1 as it is."""
        return [cell[part][which] for cell in self.cells.get(name, ()) if cell.get(part)]

    def comes(self, one: Contender) -> list[float]:
        """Return what seeds scored with the method as it comes."""
        return self.values(one.name, one.comes)

    def differs(self, name: str, part: str) -> float | None:
        """Return by how much a part is ahead of the untuned method in seeds that have both."""
        cells = self.cells.get(name, ())
        both = [c[part][0] - c["untuned"][0] for c in cells if part in c and "untuned" in c]
        return fmean(both) if both else None

    def loses(self, one: Contender) -> float | None:
        """Return how far the method as it comes is behind the best, seed by seed, on average."""
        found = []
        for seed, cell in enumerate(self.cells.get(one.name, ())):
            if one.comes in cell:
                others = [(it.comes, self.cells.get(it.name)) for it in _contenders()]
                scores = [c[seed][part][0] for part, c in others if c and part in c[seed]]
                found.append(max(scores) - cell[one.comes][0])
        return fmean(found) if found else None

    def shown(self, values: Sequence[float]) -> str:
        """Return a cell, which says of how many seeds if not of all."""
        if not values:
            return ""
        return percent(values) + (f" ({len(values)})" if len(values) < self.seeds else "")

    def missing(self) -> list[str]:
        """Return what is not measured in any seed: parts, by how many methods lack them."""
        found = []
        for part in ("untuned", "tuned"):
            wanted = [
                one
                for one in CONTENDERS.values()
                if not one.data and (part != "tuned" or one.tried)
            ]
            lack = [one for one in wanted if not self.values(one.name, part)]
            if lack:
                few = ": " + ", ".join(one.called for one in lack) if len(lack) < 8 else ""
                found.append(f"{part} of {len(lack)} of {len(wanted)} methods{few}")
        return found


def columns(found: Mapping[str, Any]) -> list[Column]:
    """Return the columns of a file of results."""
    seeds = list(found["seeds"].values())
    sizes = sorted({size for seed in seeds for size in seed}, key=int)
    made = []
    for size in sizes:
        mine = [seed[size] for seed in seeds if size in seed]
        names = dict.fromkeys(name for one in mine for name in one["methods"])
        cells = {name: [one["methods"].get(name, {}) for one in mine] for name in names}
        made.append(Column(found["suite"], int(size), len(mine), mine, cells))
    return made


def table(found: Mapping[str, Any]) -> str:
    """Return, for each number of tasks of a suite, methods by what they score as they come."""
    made = columns(found)
    parts = []
    for column in made:
        parts += [f"**{column.tasks} tasks**"] if len(made) > 1 else []
        parts.append(_table(column))
    return "\n\n".join([*parts, *([found["note"]] if "note" in found else [])])


def _table(column: Column) -> str:
    """Return the table of a column: untuned, auto and tuned side by side."""
    base, own = [one["base"] for one in column.ends], [one["fine-tuned"] for one in column.ends]
    rows = [["base", percent([one[0] for one in base]), "", "", percent([one[1] for one in base])]]
    known = [one for one in CONTENDERS.values() if any(column.cells.get(one.name, ()))]
    for one in sorted(known, key=lambda one: _best(column, one)):
        cells = column.cells[one.name]
        raw = column.values(one.name, "tuned", 1) or column.values(one.name, one.comes, 1)
        shown = [
            column.shown(column.values(one.name, part)) for part in ("untuned", "auto", "tuned")
        ]
        chosen = parameters([cell["chosen"] for cell in cells if "chosen" in cell])
        cost = [cell["cost"] for cell in cells if "cost" in cell]
        seconds = f"{min(cost):.2g}" if cost else ""
        called = f"{one.called} (data)" if one.data else one.called
        rows.append([called, *shown, column.shown(raw), chosen, seconds])
    rows.append(["fine-tuned, each on its task", "100", "", "", percent(own)])
    head = ["method", "untuned", "`auto`", "tuned", "raw", "chosen", "seconds"]
    rows = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    kept = [i for i, name in enumerate(head) if not i or any(row[i] for row in rows)]
    return markdown([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _best(column: Column, one: Contender) -> float:
    """Return what a column is sorted by: tuned, or without a choice where there is none."""
    found = column.values(one.name, "tuned") or column.comes(one)
    return fmean(found or column.values(one.name, "untuned") or [0.0])


def untuned(every: Sequence[Mapping[str, Any]], most: int | None = None) -> str:
    """Return methods as they come over all suites, and what they lose against the best of each.

    Sorted by the mean of what they lose; those that are not measured in every column come last.
    most: the first contenders alone, so many; all unless told.
    """
    made = _measured(every)
    rows: list[tuple[tuple[int, float], list[str]]] = []
    for one in _contenders()[:most]:
        lost = [value for column in made if (value := column.loses(one)) is not None]
        if not lost:
            continue
        shown = [column.shown(column.comes(one)) for column in made]
        ends = [f"{100 * fmean(lost):.1f}", f"{100 * max(lost):.1f}"]
        called = one.called + (" *" if one.comes == "auto" else "")
        rows.append(((len(made) - len(lost), fmean(lost)), [called, *shown, *ends]))
    base = [percent([one["base"][0] for one in column.ends]) for column in made]
    rows.append(((-1, 0.0), ["base", *base, "", ""]))
    head = ["method", *[column.name for column in made], "loses, mean", "at worst"]
    return markdown(head, [row for _, row in sorted(rows, key=lambda row: row[0])])


def leaders(every: Sequence[Mapping[str, Any]]) -> str:
    """Return `untuned` of the most telling methods."""
    return untuned(every, LEADERS)


def gains(every: Sequence[Mapping[str, Any]]) -> str:
    """Return what `auto` and what tuning add to the untuned method, in points, over all suites."""
    made = _measured(every)
    rows = []
    for one in _contenders():
        cells = []
        for column in made:
            both = [column.differs(one.name, part) for part in ("auto", "tuned")]
            shown = ["" if value is None else f"{100 * value:+.1f}" for value in both]
            cells.append(" / ".join(shown) if any(shown) else "")
        if any(cells):
            rows.append([one.called, *cells])
    return markdown(["method", *[column.name for column in made]], rows)


def missing(every: Sequence[Mapping[str, Any]]) -> str:
    """Return what is not measured yet, a line a column; and columns that are not there at all."""
    made = [column for found in every for column in columns(found)]
    lines = [
        f"* {it.suite}, {it.tasks} tasks: {'; '.join(lack)}."
        for it in made
        if (lack := it.missing())
    ]
    suites = {column.suite.partition(",")[0] for column in made}
    names = {column.name for column in made}
    lines += [
        f"* {suite}, {size} tasks: all."
        for suite, sizes in SIZES.items()
        for size in sizes
        if f"{suite}, {size}" not in names
    ]
    lines += [f"* {suite}: all." for suite in ORDER if suite not in {*suites, *SIZES}]
    return "\n".join(lines)


def _measured(every: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns in which methods that have an alpha were measured without a choice."""
    made = [column for found in every for column in columns(found)]
    choosing = [one for one in _contenders() if one.tried]
    return [column for column in made if any(map(column.comes, choosing))]


def _contenders() -> list[Contender]:
    return [one for one in CONTENDERS.values() if not one.data]
