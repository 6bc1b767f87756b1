"""Tables of results: models in rows, tasks in columns, means raw and normalised.

The normalised mean is the mean over tasks of a model's value divided by that of the task's own
fine-tuned model, not the ratio of the two means.
"""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from breadcrumbs.checkpoint import notebook
from breadcrumbs.errors import ResultsError, counted, listing, suggestion
from breadcrumbs.evaluate.results import standard_errors
from breadcrumbs.evaluate.results.results import BASE, FINETUNED, KEY, Results, Row, refer
from breadcrumbs.evaluate.results.standard_errors import Estimate

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")
#: Digits of a hash that are shown.
SHORT = 8


@dataclass(frozen=True)
class Line:
    """A model, or the fine-tuned models together, and its row of each task that it was scored on.

    name: the label, with what tells it from others of the same label. model: the hash, empty for
    the fine-tuned models together. correction: digest of what was learned besides.
    """

    name: str
    label: str
    model: str
    seed: int | None
    rows: Mapping[str, Row]
    correction: str = ""

    @property
    def transductive(self) -> bool:
        """Whether something was learned from rows that are scored here."""
        return any(row.transductive for row in self.rows.values())

    @property
    def together(self) -> bool:
        """Whether these are the fine-tuned models, each on its own task."""
        return not self.model

    def fits(self, name: str) -> bool:
        """Whether the line may be called that: a label, a glob, or the beginning of a hash."""
        named = fnmatchcase(self.name, name) or fnmatchcase(self.label, name)
        if len(name) >= 4 and (self.correction or self.model).startswith(name):
            return True
        return named or self.label == name


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of one suite and one split. notes: what the reader should know of it.

    lines: what is shown. single: the fine-tuned models that were scored on their own task alone,
    which are shown together.
    """

    suite: str
    split: str
    tasks: tuple[str, ...]
    lines: tuple[Line, ...]
    single: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What is printed above the table."""
        return f"{self.suite}, {self.split} rows, in percent"

    def cell(self, line: Line, task: str) -> Estimate | None:
        """Return the value of a task, or None if it is missing."""
        row = line.rows.get(task)
        return None if row is None else Estimate(row.value, row.stderr)

    def normalised_cell(self, line: Line, task: str) -> Estimate | None:
        """Return the normalised value of a task, or None if it is not known."""
        row = line.rows.get(task)
        return None if row is None else row.normalised_estimate

    def mean(self, line: Line) -> Estimate | None:
        """Return the mean over all tasks, or None if one is missing."""
        return mean_of(self.cell(line, task) for task in self.tasks)

    def normalised(self, line: Line) -> Estimate | None:
        """Return the mean over all tasks of normalised values, or None if one is missing."""
        return mean_of(self.normalised_cell(line, task) for task in self.tasks)

    def competes(self, line: Line, task: str) -> bool:
        """Whether a line has a row of a task, and not of the model that was fine-tuned on it."""
        row = line.rows.get(task)
        return row is not None and not row.own

    def metric(self, task: str) -> str:
        """Return what a task is measured in."""
        lines = (*self.lines, *self.single)
        return next(line.rows[task].metric for line in lines if task in line.rows)

    def line(self, name: str) -> Line:
        """Return the one line of a name, a label, a glob or the beginning of a hash."""
        lines = [*self.lines, *self.single]
        exact = [line for line in lines if line.name == name]
        fits = exact or [line for line in lines if line.fits(name)]
        if len(fits) == 1:
            return fits[0]
        if fits:
            names = [f"{line.name} {line.model[:SHORT]}".strip() for line in fits]
            raise ResultsError(f"{name!r} may be {listing(names, 12)}. Give a name or a hash.")
        raise self._unknown(name)

    def only(self, names: Sequence[str]) -> Table:
        """Return the table with the lines of these names alone."""
        for name in names:
            if not any(line.fits(name) for line in (*self.lines, *self.single)):
                raise self._unknown(name)
        lines = (*self.lines, *self.single)
        return replace(self, lines=tuple(x for x in lines if any(map(x.fits, names))), single=())

    def best_first(self) -> Table:
        """Return the table with the highest means first, after the base and the fine-tuned.

        Transductive lines come after all others.
        """
        return replace(self, lines=ranked(self, self.lines))

    def _unknown(self, name: str) -> ResultsError:
        names = [line.name for line in (*self.lines, *self.single)]
        return ResultsError(
            f"no model {name!r} among the results.{suggestion(name, names)} There are"
            f" {listing(names, 12)}."
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return of each model its values by task and their means, raw and normalised."""
        return [
            {"model": line.name}
            | {task: _value(self.cell(line, task)) for task in self.tasks}
            | {"mean": _value(self.mean(line)), "normalised": _value(self.normalised(line))}
            for line in self.lines
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return `rows` as a frame of pandas."""
        return notebook.frame(self.rows())

    def __repr__(self) -> str:
        number = f"{counted(len(self.lines), 'model')} on {counted(len(self.tasks), 'task')}"
        return f"<Table of {self.suite}, {self.split} rows: {number}>"

    def _repr_html_(self) -> str:
        title = f"{self.suite}, {self.split} rows"
        return notebook.table(title, self.rows(), None, self.notes)

    def to_mapping(self) -> dict[str, Any]:
        """Return the table as plain data."""
        models = []
        for line in self.lines:
            mean, normalised = self.mean(line), self.normalised(line)
            models.append(
                {
                    "name": line.name,
                    "model": line.model or None,
                    "seed": line.seed,
                    "transductive": line.transductive,
                    "mean": mean and mean._asdict(),
                    "normalised": normalised and normalised._asdict(),
                    "tasks": {task: row.to_mapping() for task, row in line.rows.items()},
                }
            )
        head = {"suite": self.suite, "split": self.split, "tasks": list(self.tasks)}
        return {**head, "models": models, "notes": list(self.notes)}


def choose(
    results: Results,
    *,
    suite: str | None = None,
    split: str = "test",
    tasks: Sequence[str] = (),
    **filters: Any,
) -> list[Row]:
    """Return rows of one suite and split, or ResultsError that says what there is instead.

    suite: the one of the latest rows of the split unless told. tasks: names or globs. filters:
    more of what `Results.select` takes.
    """
    where, contents = results.name, results.contents()
    if not contents:
        raise ResultsError(f"{where}: holds no rows yet. `breadcrumbs evaluate` writes some.")
    suites = list(dict.fromkeys(name for name, _, _ in contents))
    if suite is not None and suite not in suites:
        raise ResultsError(
            f"{where}: no rows of suite {suite!r}.{suggestion(suite, suites)} There are rows of"
            f" {listing(suites, 12)}."
        )
    fits = [one for one, its, _ in contents if its == split and suite in (None, one)]
    if not fits:
        there = [f"{number} {its} rows of {one}" for one, its, number in contents]
        raise ResultsError(
            f"{where}: no {split} rows. There are {', '.join(there[:12])}: choose with --split."
        )
    suite = glob.escape(fits[0])
    rows = results.select(suite=suite, split=split)
    if not rows:
        raise ResultsError(f"{where}: none of the rows is complete. Score the models again.")
    known = list(dict.fromkeys(row.task for row in rows))
    for name in tasks:
        if name not in known and not any(fnmatchcase(task, name) for task in known):
            raise ResultsError(
                f"{where}: no {split} rows of task {name!r} in suite {fits[0]!r}."
                f"{suggestion(name, known)} There are {listing(known, 24)}."
            )
    chosen = {"task": tasks} if tasks else {}
    if not chosen and not filters:
        return rows
    found = results.select(suite=suite, split=split, **chosen, **filters)
    if not found:
        given = ", ".join(f"{name} {value}" for name, value in filters.items())
        there = [
            f"{name} {', '.join(sorted({str(getattr(row, name)) for row in rows}))}"
            for name in filters
        ]
        raise ResultsError(f"{where}: no rows with {given}. There are {'; '.join(there)}.")
    return found


def of(rows: Iterable[Row]) -> Table:
    """Return the table of rows of one suite and split; of the same model the later rows count.

    In the order of the rows: the base, the fine-tuned models together, all others.
    """
    rows = list(rows)
    if len({(row.suite, row.split) for row in rows}) != 1:
        raise ResultsError("a table is of one suite and one split. Choose them.")
    kept, notes = _comparable(refer(rows, rows))
    tasks = tuple(dict.fromkeys(row.task for row in kept))
    lines, single = _lines(kept)
    notes += [
        f"{line.name}: only {len(line.rows)} of {len(tasks)} tasks, so there is no mean"
        for line in lines
        if len(line.rows) < len(tasks)
    ]
    notes += [
        f"{line.name}: is transductive: learned from rows that are scored here, so it is not"
        " compared with the others"
        for line in lines
        if line.transductive
    ]
    known = {row.task for row in kept if row.normalised is not None}
    lacking = [task for task in tasks if task not in known]
    if known and lacking:
        notes.append(f"no row of the fine-tuned model of {listing(lacking)}: nothing to divide by")
    return Table(rows[0].suite, rows[0].split, tasks, tuple(lines), tuple(single), tuple(notes))


def _comparable(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Return, of each task, the rows that were measured as its latest was, and notes on others."""
    names = [name for name in KEY if name not in ("model", "correction")]
    latest = {row.task: row for row in rows}
    kept, others, why = [], Counter[str](), dict[str, set[str]]()
    for row in rows:
        differ = [name for name in names if getattr(row, name) != getattr(latest[row.task], name)]
        if not differ:
            kept.append(row)
            continue
        others[row.task] += 1
        why.setdefault(row.task, set()).update(differ)
    return kept, [
        f"{task}: left out {counted(number, 'row')} with another {' or '.join(sorted(why[task]))}"
        " than the latest row has"
        for task, number in others.items()
    ]


def _lines(rows: Sequence[Row]) -> tuple[list[Line], list[Line]]:
    """Return a line for each label, model and seed; apart from those of one's own task alone."""
    found: dict[tuple[str, str, int | None, str], dict[str, Row]] = {}
    own: dict[int | None, dict[str, Row]] = {}
    for row in rows:
        label = BASE if row.model == row.base and not row.correction else row.label
        found.setdefault((label, row.model, row.seed, row.correction), {})[row.task] = row
        if row.own:
            own.setdefault(row.seed, {})[row.task] = row
    base, others, single = [], [], []
    for (label, model, seed, correction), mine in found.items():
        line = Line(label, label, model, seed, mine, correction)
        alone = all(row.own for row in mine.values())
        (base if label == BASE else single if alone else others).append(line)
    together = [Line(FINETUNED, FINETUNED, "", seed, mine) for seed, mine in own.items()]
    return _named([*base, *together, *others]), single


def _named(lines: Sequence[Line]) -> list[Line]:
    """Return the lines, those of the same label with the seed or the hash in their names."""
    found = []
    for line in lines:
        same = [other for other in lines if other.label == line.label]
        name = line.label
        if len({other.seed for other in same}) > 1 and line.seed is not None:
            name += f" seed {line.seed}"
        if sum(other.seed == line.seed for other in same) > 1:
            name += f" {(line.correction or line.model)[:SHORT]}"
        found.append(replace(line, name=name))
    return found


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def ranked(table: Any, lines: Iterable[T]) -> tuple[T, ...]:
    """Return the lines of a table by their means, after the base and the fine-tuned; transductive
    ones last."""

    def rank(line: Any) -> tuple[int, float]:
        if line.label in (BASE, FINETUNED):
            return 0, 0.0
        found = table.normalised(line) or table.mean(line)
        return 1 + line.transductive, -found.value if found else float("inf")

    return tuple(sorted(lines, key=rank))


def mean_of(estimates: Iterable[Estimate | None]) -> Estimate | None:
    """Return the mean, or None if one is missing."""
    found = list(estimates)
    known = [one for one in found if one is not None]
    return standard_errors.mean(known) if known and len(known) == len(found) else None
