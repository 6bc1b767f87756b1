"""Tables and comparisons as text: Markdown, LaTeX, CSV, and the grid of cells that all share."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from breadcrumbs.evaluate.results.comparison import Comparison
from breadcrumbs.evaluate.results.results import Row
from breadcrumbs.evaluate.results.seeds import Group, OverSeeds, Spread
from breadcrumbs.evaluate.results.standard_errors import Estimate
from breadcrumbs.evaluate.results.tables import Table


@dataclass(frozen=True)
class Grid:
    """Cells as they are read. best: (row, column) of what is marked. last: a rule precedes it."""

    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    last: bool = False


def of_table(table: Table | OverSeeds) -> Grid:
    """Return percentages: models in rows; tasks, mean and normalised mean in columns.

    The best of a column is marked where it is alone in being best as printed. The fine-tuned
    models do not compete on their own tasks, and what is transductive competes nowhere.
    """
    header = ("model", *(_heading(table, task) for task in table.tasks), "mean", "normalised")
    body, scores = [], []
    for line, estimates in _lines(table):
        cells = ["" if one is None else f"{100 * one.value:.1f}" for one in estimates[:-2]]
        cells += [_plus_minus(mean) for mean in estimates[-2:]]
        fair = not line.transductive
        body.append((line.name if fair else f"{line.name} (transductive)", *cells))
        competing = [fair and table.competes(line, task) for task in table.tasks]
        competing += [fair and not line.together] * 2
        scores.append(
            [
                float(text.split(" ")[0]) if ok and text else None
                for text, ok in zip(cells, competing, strict=True)
            ]
        )
    best = set()
    for column in range(len(header) - 1):
        known = [(one[column], row) for row, one in enumerate(scores) if one[column] is not None]
        top = [row for score, row in known if score == max(known)[0]]
        if len(known) > 1 and len(top) == 1:
            best.add((top[0], column + 1))
    return Grid(header, tuple(body), frozenset(best))


def of_comparison(found: Comparison) -> Grid:
    """Return percentages, differences in points, and which are beyond two standard errors."""
    header = ("task", found.first.name, found.second.name, "difference", "normalised", "clear")
    body = [
        (
            task,
            f"{100 * found.first.rows[task].value:.1f}",
            f"{100 * found.second.rows[task].value:.1f}",
            *_differences(raw, found.normalised[task]),
        )
        for task, raw in found.raw.items()
    ]
    first, second = (
        f"{100 * sum(line.rows[task].value for task in found.raw) / len(found.raw):.1f}"
        for line in (found.first, found.second)
    )
    body.append(("mean", first, second, *_differences(found.mean, found.normalised_mean)))
    return Grid(header, tuple(body), last=True)


def verdict(found: Comparison) -> str:
    """Return what the mean difference says, as a sentence."""
    mean = found.mean
    more, less = found.first.name, found.second.name
    if mean.value < 0:
        more, less = less, more
    size = f"{abs(100 * mean.value):.1f} ± {100 * mean.stderr:.1f} points"
    if not mean.clear:
        return f"no clear difference of the means: {size}, within two standard errors"
    return f"{more} is better than {less} by {size}, more than two standard errors"


def markdown(grid: Grid) -> str:
    """Return a table in Markdown, the best in bold."""
    marks = ["---", *["---:"] * (len(grid.header) - 1)]
    body = _escaped(grid, _markdown, "**{}**")
    lines = [[_markdown(cell) for cell in grid.header], marks, *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(grid: Grid) -> str:
    """Return a table in LaTeX, for the package booktabs, the best in bold."""
    body = _escaped(grid, _latex, "\\textbf{{{}}}")
    lines = [" & ".join(line) + " \\\\\n" for line in body]
    if grid.last:
        lines.insert(-1, "\\midrule\n")
    return (
        f"\\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}\n\\toprule\n"
        f"{' & '.join(map(_latex, grid.header))} \\\\\n\\midrule\n{''.join(lines)}"
        "\\bottomrule\n\\end{tabular}\n"
    )


def rows_csv(rows: Iterable[Row]) -> str:
    """Return one line for each row, with all its fields but the hits."""
    found = [row.to_mapping() for row in rows]
    return _csv([list(found[0]), *(list(one.values()) for one in found)])


def wide_csv(table: Table | OverSeeds) -> str:
    """Return one line for each model, with each task's value and standard error, and the means."""
    names = [*table.tasks, "mean", "normalised"]
    several = isinstance(table, OverSeeds)
    header = ["name", "seeds"] if several else ["name", "model", "seed"]
    header += [x for name in names for x in (name, f"{name} stderr")]
    rows = []
    for line, estimates in _lines(table):
        own = isinstance(line, Group)
        head = [" ".join(map(str, line.seeds))] if own else [line.model, line.seed]
        cells = [x for one in estimates for x in ((None, None) if one is None else one[:2])]
        rows.append([line.name, *head, *cells])
    return _csv([header, *rows])


def seeds_csv(table: OverSeeds) -> str:
    """Return one line for each model and task, and one for its mean over all tasks."""
    header = ["name", "task", "metric", "value", "stderr", "seeds", "normalised"]
    rows = []
    for group in table.lines:
        found: list[tuple[str, str | None, Spread | None, Spread | None]] = [
            (task, table.metric(task), table.cell(group, task), table.normalised_cell(group, task))
            for task in table.tasks
        ]
        for name, metric, value, normalised in [
            *found,
            ("mean", None, table.mean(group), table.normalised(group)),
        ]:
            if value is not None:
                ratio = [None, None] if normalised is None else normalised[:2]
                rows.append([group.name, name, metric, *value, *ratio])
    return _csv([[*header, "normalised_stderr"], *rows])


def comparison_csv(found: Comparison) -> str:
    """Return one line for each task, and one for the mean."""
    plain = found.to_mapping()
    columns = list(next(iter(plain["tasks"].values())))
    rows = [[task, *one.values()] for task, one in plain["tasks"].items()]
    mean = ["mean", *(plain["mean"].get(name) for name in columns)]
    return _csv([["task", *columns], *rows, mean])


def _lines(table: Any) -> Iterator[tuple[Any, list[Estimate | Spread | None]]]:
    """Yield the lines of a table with their values: of each task, the mean, and normalised."""
    for line in table.lines:
        cells = [table.cell(line, task) for task in table.tasks]
        yield line, [*cells, table.mean(line), table.normalised(line)]


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _heading(table: Table | OverSeeds, task: str) -> str:
    metric = table.metric(task)
    return task if metric == "accuracy" else f"{task} ({metric})"


def _plus_minus(found: Estimate | Spread | None) -> str:
    if found is None:
        return ""
    error = "" if found.stderr is None else f" ± {100 * found.stderr:.1f}"
    return f"{100 * found.value:.1f}{error}"


def _differences(raw: Estimate, normalised: Estimate | None) -> tuple[str, str, str]:
    texts = [
        "" if one is None else f"{100 * one.value:+.1f} ± {100 * one.stderr:.1f}"
        for one in (raw, normalised)
    ]
    return texts[0], texts[1], "yes" if raw.clear else "no"


def _escaped(grid: Grid, escape: Callable[[str], str], bold: str) -> list[list[str]]:
    """Return the cells as a language writes them."""
    return [
        [
            bold.format(escape(cell)) if (i, j) in grid.best else escape(cell)
            for j, cell in enumerate(row)
        ]
        for i, row in enumerate(grid.body)
    ]


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_<`\[\]])", r"\\\1", " ".join(text.split()))


def _latex(text: str) -> str:
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
    }
    text = " ".join(text.split())
    return re.sub(r"[\\~^±&%$#_{}]", lambda m: special.get(m[0], f"\\{m[0]}"), text)
