"""What stands on the page of `evaluate` and `results`: tables and figures of scores."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from breadcrumbs.errors import ResultsError
from breadcrumbs.evaluate.results import exports, sweeps, tables
from breadcrumbs.evaluate.results.comparison import Comparison
from breadcrumbs.evaluate.results.results import BASE, FINETUNED, Results
from breadcrumbs.evaluate.results.tables import Table
from breadcrumbs.pages import charts, lines
from breadcrumbs.pages import page as pages
from breadcrumbs.pages.page import Figure, Page, Section

#: Models that are drawn one by one, at most: the best.
MOST = 16


def of(table: Table, kind: str = "results") -> Page:
    """Return the page of a table of results."""
    table = described(table)
    shown = table.best_first()
    grid = exports.of_table(shown)
    tiles = [("models", str(len(table.lines))), ("tasks", str(len(table.tasks)))]
    merged = [
        (line.name, found)
        for line in shown.lines
        if line.label not in (BASE, FINETUNED)
        and not line.transductive
        and (found := table.normalised(line) or table.mean(line)) is not None
    ]
    normalised = any(table.normalised(line) for line in table.lines)
    score = "normalised accuracy" if normalised else "mean accuracy"
    if merged:
        name, best = merged[0]
        tiles += [("best merged", name), (score, f"{best.value:.1%} ± {best.stderr:.1%}")]
    known = [line for line in table.lines if table.mean(line)]
    figures = [_means(shown, score)] if len(known) > 1 else []
    figures.append(_tasks(shown))
    sections = [
        Section(
            "Scores",
            _SCORES,
            tables=[pages.Table(grid.header, grid.body, "In percent", grid.best)],
            figures=figures,
        )
    ]
    points = sweeps.points(table)
    found = sweeps.figures(points, score)
    if found:
        sections.append(Section("Settings", _SETTINGS, figures=found))
    of = "one task" if len(table.tasks) == 1 else f"{len(table.tasks)} tasks"
    lead = f"Accuracy on the {table.split} rows of {of} of the suite."
    return Page(f"Results of {table.suite}", kind, lead, tiles, sections, notes=table.notes)


def described(table: Table) -> Table:
    """Return the table with the settings in the names of merges that have one label, and no name
    twice."""
    labels = Counter(line.label for line in table.lines)
    seen: Counter[str] = Counter()
    made = []
    for line in table.lines:
        name = line.name
        if labels[line.label] > 1 and (settings := sweeps.settings_of(line)) is not None:
            name = sweeps.said(settings)
        seen[name] += 1
        made.append(replace(line, name=f"{name} ({seen[name]})" if seen[name] > 1 else name))
    return replace(table, lines=tuple(made))


def of_file(file: str, suite: str | None = None, split: str = "validation") -> Page:
    """Return the page of the rows of a file; ResultsError where there are none of that kind."""
    with Results(file, readonly=True) as results:
        rows = tables.choose(results, suite=suite, split=split)
    return of(tables.of(rows), "report")


def live(file: str, suite: str | None = None, split: str = "validation") -> Page:
    """Return what `of_file` does, or a page that says what it waits for."""
    try:
        return of_file(file, suite, split)
    except ResultsError as error:
        lead = f"This page shows the {split} rows of {file} as soon as there are some."
        return Page("Waiting for rows", "report", lead, notes=[str(error)])


def of_comparison(table: Table, found: Comparison) -> Page:
    """Return the page of a comparison of two models on the same rows."""
    grid = exports.of_comparison(found)
    rows = [(task, one.value, one.stderr) for task, one in found.raw.items()]
    first, second = found.first.name, found.second.name
    figure = lines.bars(
        "difference",
        "Difference by task",
        f"By how much {first} is better than {second}; lines are one standard error to each side. A"
        " difference of less than two of them may be chance.",
        rows,
        label="task",
        value="difference of accuracy",
        form=".1%",
    )
    section = Section(
        "Difference",
        exports.verdict(found).capitalize() + ".",
        tables=[pages.Table(grid.header, grid.body)],
        figures=[figure],
    )
    lead = f"Two models on the same {table.split} rows of {table.suite}."
    mean = f"{100 * found.mean.value:+.1f} ± {100 * found.mean.stderr:.1f} points"
    title = f"{first} against {second}"
    return Page(title, "results", lead, [("mean difference", mean)], [section], notes=found.notes)


def _means(table: Table, score: str) -> Figure:
    rows = []
    for line in table.lines[:MOST]:
        mean = table.normalised(line) if score.startswith("norm") else table.mean(line)
        if mean is not None:
            rows.append((line.name, mean.value, mean.stderr))
    return lines.bars(
        "means",
        f"{score.capitalize()} of each model",
        f"The mean over all tasks{_OF_OWN if score.startswith('norm') else ''}; lines are one"
        " standard error to each side. Higher is better; of many models the best are drawn.",
        rows,
        label="model",
        value=score,
        form=".0%",
    )


def _tasks(table: Table) -> Figure:
    """Return the accuracy of each model on each task."""
    records = [
        {"x": task, "y": line.name, "value": cell.value, "stderr": cell.stderr}
        for line in table.lines[:MOST]
        for task in table.tasks
        if (cell := table.cell(line, task)) is not None
    ]
    rows = [(r["y"], r["x"], r["value"], r["stderr"]) for r in records]
    return charts.heat(
        "tasks",
        "Every model on every task",
        "Rows are models, columns tasks; a stronger colour is more accurate. A pale cell in a"
        " strong column is a task that the model lost.",
        records,
        x=("task", table.tasks),
        y=("", [line.name for line in table.lines[:MOST]]),
        value=("accuracy", ".0%"),
        tips=[("value", "accuracy", ".1%"), ("stderr", "standard error", ".1%")],
        table=pages.Table(("model", "task", "accuracy", "standard error"), rows),
        zero=False,
    )


_OF_OWN = " of accuracy divided by that of the task's own fine-tuned model"
_SCORES = (
    "Models in rows, tasks in columns, in percent. Normalised is the mean over tasks of a model's"
    " accuracy divided by that of the model fine-tuned on the task; after ± stands one standard"
    " error. The best of each column is bold."
)
_SETTINGS = "Of the models that were merged by a known recipe: what their parameters do."
