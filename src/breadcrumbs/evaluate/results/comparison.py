"""Two models compared on the same rows: by how much they differ, and whether that is much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from breadcrumbs.checkpoint import notebook
from breadcrumbs.errors import ResultsError, counted, listing
from breadcrumbs.evaluate.results import standard_errors
from breadcrumbs.evaluate.results.standard_errors import Estimate
from breadcrumbs.evaluate.results.tables import Line, Table, mean_of

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two lines on the tasks that both have: (first - second) of each, raw and normalised."""

    first: Line
    second: Line
    raw: Mapping[str, Estimate]
    normalised: Mapping[str, Estimate | None]
    notes: tuple[str, ...] = ()

    @property
    def mean(self) -> Estimate:
        """The mean difference over the tasks."""
        return standard_errors.mean(list(self.raw.values()))

    @property
    def normalised_mean(self) -> Estimate | None:
        """The mean over the tasks of differences divided by the fine-tuned model's value."""
        return mean_of(self.normalised.values())

    def rows(self) -> list[dict[str, Any]]:
        """Return of each task both values, their difference, its standard error, and whether it is
        beyond two of these."""
        return [
            {
                "task": task,
                self.first.name: self.first.rows[task].value,
                self.second.name: self.second.rows[task].value,
                "difference": raw.value,
                "stderr": raw.stderr,
                "clear": raw.clear,
            }
            for task, raw in self.raw.items()
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return `rows` as a frame of pandas."""
        return notebook.frame(self.rows())

    def __repr__(self) -> str:
        mean = f"{self.mean.value:+.4f} on average of {counted(len(self.raw), 'task')}"
        return f"<Comparison of {self.first.name} with {self.second.name}: {mean}>"

    def _repr_html_(self) -> str:
        facts = {"mean difference": self.mean.value, "stderr": self.mean.stderr}
        title = f"{self.first.name} and {self.second.name}"
        return notebook.table(title, self.rows(), facts, self.notes)

    def to_mapping(self) -> dict[str, Any]:
        """Return the comparison as plain data."""

        def plain(raw: Estimate, normalised: Estimate | None) -> dict[str, Any]:
            return {
                "difference": raw.value,
                "stderr": raw.stderr,
                "beyond_two_stderr": raw.clear,
                "normalised_difference": normalised and normalised.value,
                "normalised_stderr": normalised and normalised.stderr,
            }

        tasks = {
            task: {
                "first": self.first.rows[task].value,
                "second": self.second.rows[task].value,
                **plain(raw, self.normalised[task]),
            }
            for task, raw in self.raw.items()
        }
        names = {"first": self.first.name, "second": self.second.name}
        mean = plain(self.mean, self.normalised_mean)
        return {**names, "tasks": tasks, "mean": mean, "notes": list(self.notes)}


def compare(table: Table, first: str, second: str) -> Comparison:
    """Return the differences of two lines of a table on the tasks that both were scored on."""
    one, two = table.line(first), table.line(second)
    shared = [task for task in table.tasks if task in one.rows and task in two.rows]
    if not shared:
        raise ResultsError(f"{one.name!r} and {two.name!r} were scored on no task in common.")
    raw, normalised, unpaired = {}, {}, []
    for task in shared:
        a, b = one.rows[task], two.rows[task]
        raw[task] = standard_errors.difference(a, b)
        normalised[task] = standard_errors.ratio_difference(a, b)
        if not standard_errors.paired(a, b):
            unpaired.append(task)
    notes = []
    if len(shared) < len(table.tasks):
        notes.append(f"{len(shared)} of {len(table.tasks)} tasks, which both were scored on")
    if unpaired:
        notes.append(f"not paired, as means of the same answers are: {listing(unpaired, 24)}")
    return Comparison(one, two, raw, normalised, tuple(notes))
