"""Tables over seeds: of each model, the mean over its seeds and how far that is to be trusted.

The standard error is s / sqrt(n), with s the standard deviation (n - 1) of the n seeds' values: it
tells how much the mean would move with other seeds of what was seeded, the fine-tuning or a random
method. A mean over tasks is taken seed by seed first, so it knows that tasks of one seed go
together. The error of the draw of rows, which a single seed's numbers have, is not in it.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from breadcrumbs.errors import ResultsError
from breadcrumbs.evaluate.results.standard_errors import Estimate
from breadcrumbs.evaluate.results.tables import Line, Table, ranked


class Spread(NamedTuple):
    """A mean over seeds, its standard error (None of one seed), and how many seeds there are."""

    value: float
    stderr: float | None
    seeds: int


@dataclass(frozen=True)
class Group:
    """The lines of one model, one for each seed."""

    name: str
    lines: tuple[Line, ...]

    @property
    def label(self) -> str:
        return self.lines[0].label

    @property
    def together(self) -> bool:
        """Whether these are the fine-tuned models, each on its own task."""
        return self.lines[0].together

    @property
    def transductive(self) -> bool:
        """Whether something was learned from rows that are scored here."""
        return any(line.transductive for line in self.lines)

    @property
    def seeds(self) -> list[int]:
        """The seeds that are known, in order."""
        return sorted(line.seed for line in self.lines if line.seed is not None)


@dataclass(frozen=True)
class OverSeeds:
    """A table with the lines of all seeds of a model in one."""

    table: Table
    lines: tuple[Group, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.table.title

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.table.tasks

    def cell(self, group: Group, task: str) -> Spread | None:
        """Return the mean over seeds of the value of a task."""
        return self._over(group, lambda line: self.table.cell(line, task))

    def normalised_cell(self, group: Group, task: str) -> Spread | None:
        """Return the mean over seeds of the normalised value of a task."""
        return self._over(group, lambda line: self.table.normalised_cell(line, task))

    def mean(self, group: Group) -> Spread | None:
        """Return the mean over seeds of the mean over all tasks; a seed that lacks one is out."""
        return self._over(group, self.table.mean)

    def normalised(self, group: Group) -> Spread | None:
        """Return the mean over seeds of the mean over all tasks of normalised values."""
        return self._over(group, self.table.normalised)

    def competes(self, group: Group, task: str) -> bool:
        """Whether none of the models was fine-tuned on the task alone."""
        return all(self.table.competes(line, task) for line in group.lines)

    def best_first(self) -> OverSeeds:
        """Return the table with the highest means first, after the base and the fine-tuned."""
        return OverSeeds(self.table, ranked(self, self.lines), self.notes)

    def metric(self, task: str) -> str:
        """Return what a task is measured in."""
        return self.table.metric(task)

    def _over(self, group: Group, of: Callable[[Line], Estimate | None]) -> Spread | None:
        found = [one.value for line in group.lines if (one := of(line)) is not None]
        return spread(found) if found else None

    def to_mapping(self) -> dict[str, Any]:
        """Return the table as plain data."""

        def plain(found: Spread | None) -> dict[str, Any] | None:
            return None if found is None else found._asdict()

        models = [
            {
                "name": group.name,
                "models": [line.model or None for line in group.lines],
                "seeds": group.seeds,
                "mean": plain(self.mean(group)),
                "normalised": plain(self.normalised(group)),
                "tasks": {
                    task: {
                        "value": plain(self.cell(group, task)),
                        "normalised": plain(self.normalised_cell(group, task)),
                    }
                    for task in self.tasks
                    if self.cell(group, task) is not None
                },
            }
            for group in self.lines
        ]
        head = {"suite": self.table.suite, "split": self.table.split, "tasks": list(self.tasks)}
        return {**head, "over": "seeds", "models": models, "notes": list(self.notes)}


def spread(values: Sequence[float]) -> Spread:
    """Return the mean of values of several seeds, and its standard error."""
    n = len(values)
    error = statistics.stdev(values) / math.sqrt(n) if n > 1 else None
    return Spread(statistics.mean(values), error, n)  # both exact: of equal values, 0


def over(table: Table) -> OverSeeds:
    """Return the table over seeds; ResultsError where there are not two.

    Models are the same but for the seed if their labels are, or differ in ``seed-S`` alone, as in
    the folders that `breadcrumbs finetune` makes.
    """
    seeds = sorted({line.seed for line in table.lines if line.seed is not None})
    if len(seeds) < 2:
        there = f"only seed {seeds[0]}" if seeds else "no seed"
        raise ResultsError(
            f"suite {table.suite}, {table.split} rows: {there} is known, so there is no mean over"
            " seeds. Rows have the seed of the suite's fine-tuning (`finetuned_seed`, which"
            " `breadcrumbs finetune` writes) or of the recipe."
        )
    groups: dict[tuple[str, bool], dict[int | None, Line]] = {}
    notes = list(table.notes)
    for line in table.lines:
        mine = groups.setdefault((shared(line), line.together), {})
        if line.seed in mine:
            told = "no seed" if line.seed is None else f"seed {line.seed}"
            notes.append(f"{line.name}: several models of {told}, of which the last counts")
        mine[line.seed] = line
    made = tuple(Group(name, tuple(mine.values())) for (name, _), mine in groups.items())
    counts = {len(group.lines) for group in made} - {1}
    number = str(counts.pop()) if len(counts) == 1 else "up to " + str(max(counts, default=1))
    notes.insert(0, f"means over {number} seeds, ± their standard error over seeds")
    alone = [group.name for group in made if len(group.lines) == 1]
    if alone:
        notes.append(f"of one seed, without an error: {', '.join(alone)}")
    return OverSeeds(table, made, tuple(notes))


def shared(line: Line) -> str:
    """Return what the lines of all seeds of a model are called."""
    if line.seed is None:
        return line.label
    return re.sub(rf"(?<![^\W_])seed-{line.seed}(?!\d)", "seed-*", line.label)
