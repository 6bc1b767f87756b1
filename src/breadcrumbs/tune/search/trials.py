"""What a search tried, and what it found."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from breadcrumbs.checkpoint import notebook, whole
from breadcrumbs.errors import OutputError
from breadcrumbs.plan.recipe import Recipe, to_yaml
from breadcrumbs.tune.search.space import Point

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Trial:
    """A point that was scored. number: from 0. score: by the objective. values: by task.

    part: whether it lost a race (`search.racing`), so that its numbers are estimates of a few rows.
    """

    number: int
    point: Point
    score: float
    values: dict[str, float]
    normalised: dict[str, float | None]
    part: bool = False


@dataclass(frozen=True, repr=False)
class Found:
    """What a search found. trials: in order. left_out: how many points of a grid are impossible."""

    trials: list[Trial]
    objective: str
    left_out: int = 0

    @property
    def best(self) -> Trial:
        """The first of the trials of the highest score, of those that were scored on all rows."""
        return max(self.whole, key=lambda trial: trial.score)

    @property
    def whole(self) -> list[Trial]:
        """The trials that were scored on all rows."""
        return [trial for trial in self.trials if not trial.part]

    @property
    def pareto(self) -> list[Trial]:
        """The trials that no other one equals on all tasks and exceeds on one, by score.

        Of trials with the same values, the first.
        """
        first: dict[tuple[float, ...], Trial] = {}
        for trial in self.whole:
            first.setdefault(tuple(trial.values.values()), trial)
        kept = [
            trial
            for row, trial in first.items()
            if not any(other != row and all(map(operator.ge, other, row)) for other in first)
        ]
        return sorted(kept, key=lambda trial: (-trial.score, trial.number))

    def rows(self) -> list[dict[str, Any]]:
        """Return of each trial its number, point, score and the values of tasks, flat."""
        return [
            {"trial": trial.number, **trial.point, self.objective: trial.score, **trial.values}
            for trial in self.trials
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return `rows` as a frame of pandas."""
        return notebook.frame(self.rows())

    def __repr__(self) -> str:
        if not self.trials:
            return "<Found: no trials>"
        best = ", ".join(f"{key} {notebook.number(it)}" for key, it in self.best.point.items())
        score = f"{self.objective} {self.best.score:.4g}"
        return f"<Found: the best of {len(self.trials)} trials has {score} at {best}>"

    def _repr_html_(self) -> str:
        rows = sorted(self.rows(), key=lambda row: -row[self.objective])
        return notebook.table("Search, the best first", rows, {"trials": len(rows)})

    def to_mapping(self) -> dict[str, Any]:
        """Return all of it as plain data, for JSON."""
        return {
            "objective": self.objective,
            "best": asdict(self.best),
            "pareto": [trial.number for trial in self.pareto],
            "trials": [asdict(trial) for trial in self.trials],
            "left_out": self.left_out,
        }


def write(path: str | Path, made: Recipe, said: Sequence[str]) -> None:
    """Write a recipe file that begins with comments; OutputError where that is not possible."""
    comments = "".join(f"# {line}\n" for line in said)
    try:
        whole.write_text(Path(path), comments + to_yaml(made))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from None
