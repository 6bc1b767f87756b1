"""The running of a search: batches of points are asked, scored and told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from breadcrumbs.errors import RecipeError, ScoreError
from breadcrumbs.plan.recipe import Recipe, to_mapping
from breadcrumbs.tune.search import racing, samplers
from breadcrumbs.tune.search.objective import OBJECTIVES, Objective
from breadcrumbs.tune.search.space import Point, Space, recipe
from breadcrumbs.tune.search.trials import Found, Trial

#: Recipes -> each of them with its values and normalised values by task, as they come.
Evaluate = Callable[
    [Sequence[Recipe]],
    Iterator[tuple[Recipe, Mapping[str, float], Mapping[str, float | None]]],
]


class Race(Protocol):
    """Scores recipes on a few rows of each task first."""

    @property
    def rows(self) -> Mapping[str, racing.Anchors]:
        """The rows by task, the same for all trials."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What they depend on, as plain data."""
        ...

    def __call__(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, racing.Raced]]:
        """Yield each recipe with what it scored, as they come."""
        ...


#: How often a point that is impossible is asked again.
ATTEMPTS = 100
#: What the notes of trials are called in the storage.
NOTE = "trial "


def run(
    template: Recipe,
    space: Space,
    evaluate: Evaluate,
    *,
    tasks: Sequence[str],
    objective: Objective = OBJECTIVES["mean"],
    sampler: str = "tpe",
    trials: int | None = None,
    batch: int = 1,
    seed: int = 0,
    storage: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    race: Race | None = None,
    told: Callable[[Trial, int], None] = lambda trial, total: None,
) -> Found:
    """Search the space and return what was tried.

    template: base and models; method, parameters and weights come from each point. evaluate: scores
        recipes on validation rows of ``tasks``.
    sampler: one of `samplers.SAMPLERS`. trials: how many, the last batch filled up; 50, or all of a
        grid, unless told. batch: how many points are asked at once.
    storage: a file that keeps the trials; with the same search in it, it goes on from there.
        identity: what the trials depend on besides what is given here, as plain data.
    race: scores on a few rows, by which it is decided what ``evaluate`` scores on all.
    told: called with every trial as it is scored, those from the storage first, and with how many
        there will be.

    Raises RecipeError before anything is merged where the space has no possible point, and where
    the storage is of another search.
    """
    samplers.check(sampler)
    space.check(template)
    grid, left_out = _grid(template, space) if sampler == "grid" else (None, 0)
    if grid is not None:
        total = min(trials or len(grid), len(grid))
    else:
        total = -(-(trials or 50) // batch) * batch
    multiple = len(tasks) if sampler == "nsga2" else 1
    study = samplers.open_study(
        storage,
        {
            "space": space.to_mapping(),
            "sampler": sampler,
            "seed": seed,
            "batch": 0 if grid is not None else batch,
            "objective": [objective.name, objective.identity],
            "tasks": list(tasks),
            "recipe": {**to_mapping(template), "method": "", "parameters": {}},
            **({} if race is None else {"race": dict(race.identity)}),
            **(identity or {}),
        },
        multiple,
    )
    search = _Search(template, space, study, sampler, seed, grid, objective, tuple(tasks), race)
    for trial in search.known.values():
        told(trial, total)
    for first in range(0, total, batch):
        numbers = range(first, min(first + batch, total))
        for trial in search.score([n for n in numbers if n not in search.known], evaluate):
            told(trial, total)
    found = [trial for number, trial in sorted(search.known.items()) if number < total]
    return Found(found, objective.name, left_out)


def _grid(template: Recipe, space: Space) -> tuple[list[Point], int]:
    """Return the possible points of a grid, and how many are not."""
    every = list(space.points())
    possible = [point for point in every if _possible(template, point)]
    if not possible:
        raise RecipeError(f"none of the {len(every)} points of the grid is possible.")
    return possible, len(every) - len(possible)


def _possible(template: Recipe, point: Point) -> bool:
    try:
        recipe(template, point)
    except RecipeError:
        return False
    return True


class _Search:
    """A running search. known: scored trials by number."""

    def __init__(
        self,
        template: Recipe,
        space: Space,
        study: Any,
        sampler: str,
        seed: int,
        grid: list[Point] | None,
        objective: Objective,
        tasks: tuple[str, ...],
        race: Race | None,
    ):
        self.template, self.space, self.study = template, space, study
        self.sampler, self.seed, self.grid = sampler, seed, grid
        self.objective, self.tasks, self.race = objective, tasks, race
        self.known: dict[int, Trial] = {}
        #: By number, what is stored of a trial: Optuna's number, the point, and what it scored.
        self.notes: dict[int, dict[str, Any]] = {}
        for key, note in study.user_attrs.items():
            if key.startswith(NOTE):
                number = int(key.removeprefix(NOTE))
                self.notes[number] = note
                if "values" in note:
                    self._know(number)
        asked = {note["optuna"]: number for number, note in self.notes.items()}
        scores = {own: self._aim(n) for own, n in asked.items() if n in self.known}
        samplers.settle(study, asked, scores)

    def _know(self, number: int) -> None:
        note = self.notes[number]
        values, normalised = dict(note["values"]), dict(note["normalised"])
        score = self.objective(values, normalised)
        self.known[number] = Trial(
            number, note["point"], score, values, normalised, note.get("part", False)
        )

    def _aim(self, number: int) -> float | list[float]:
        """Return what the sampler is to make large: nsga2 takes all tasks at once."""
        trial = self.known[number]
        if self.sampler != "nsga2":
            return trial.score
        found = trial.normalised if self.objective.normalised else trial.values
        return [found[task] or 0.0 for task in self.tasks]

    def score(self, numbers: Sequence[int], evaluate: Evaluate) -> Iterator[Trial]:
        """Score trials by their numbers, the same point once; yield them as they come."""
        for number in numbers:
            if number not in self.notes:
                self._ask(number)
        waiting: dict[str, list[int]] = {}
        for number in numbers:
            waiting.setdefault(_key(self.notes[number]["point"]), []).append(number)
        for trial in list(self.known.values()):
            for number in waiting.pop(_key(trial.point), ()):
                yield self._tell(number, trial.values, trial.normalised, trial.part)
        if self.race is not None and waiting:
            yield from self._raced(self.race, waiting)
        asked = list(waiting.values())
        recipes = [recipe(self.template, self.notes[mine[0]]["point"]) for mine in asked]
        keys = list(waiting)
        for scored, values, normalised in evaluate(recipes) if recipes else ():
            lacking = [task for task in self.tasks if task not in values]
            if lacking:
                raise ScoreError(f"no score came of {', '.join(lacking)}.")
            mine = {task: float(values[task]) for task in self.tasks}
            for number in waiting.pop(keys[recipes.index(scored)]):
                yield self._tell(number, mine, {task: normalised.get(task) for task in self.tasks})
        if waiting:
            raise ScoreError(f"no scores came of {len(waiting)} of {len(recipes)} recipes.")

    def _raced(self, race: Race, waiting: dict[str, list[int]]) -> Iterator[Trial]:
        """Race trials; take out of those that wait, and yield, the ones that lose."""
        firsts = {key: mine[0] for key, mine in waiting.items()}
        new = [number for number in firsts.values() if "raced" not in self.notes[number]]
        recipes = [recipe(self.template, self.notes[number]["point"]) for number in new]
        for scored, found in race(recipes) if recipes else ():
            number = new[recipes.index(scored)]
            self._note(number, {**self.notes[number], "raced": found.to_mapping()})
        known = {
            number: racing.Raced.of(note["raced"], race.rows)
            for number, note in self.notes.items()
            if "raced" in note
        }
        lacking = [number for number in new if number not in known]
        if lacking:
            raise ScoreError(f"no scores came of {len(lacking)} of {len(recipes)} recipes.")
        scores = {n: self.objective(one.values, one.normalised) for n, one in known.items()}
        paired = self.objective.name in ("mean", "raw")
        stay = racing.kept(scores, known, firsts.values(), race.rows, paired)
        for key, first in firsts.items():
            if first in stay:
                continue
            for number in waiting.pop(key):
                yield self._tell(number, known[first].values, known[first].normalised, part=True)

    def _ask(self, number: int) -> None:
        """Ask for a new trial, and note its number and point."""
        if self.grid is not None:
            trial, point = self.study.ask(), self.grid[number]
        else:
            trial, point = self._ask_sampler(number)
        self._note(number, {"optuna": trial.number, "point": point})

    def _ask_sampler(self, number: int) -> tuple[Any, Point]:
        for attempt in range(ATTEMPTS):
            trial, choose = samplers.ask(self.study, self.sampler, self.seed, number, attempt)
            point = self.space.point(choose)
            if _possible(self.template, point):
                return trial, point
            samplers.tell(self.study, trial.number, None)
        raise RecipeError(
            f"{ATTEMPTS} points in a row were impossible, the last: {point}. Give ranges that fit"
            " each other."
        )

    def _tell(
        self,
        number: int,
        values: Mapping[str, float],
        normalised: Mapping[str, float | None],
        part: bool = False,
    ) -> Trial:
        scored = {"values": dict(values), "normalised": dict(normalised)}
        scored |= {"part": True} if part else {}
        self._note(number, {**self.notes[number], **scored})
        self._know(number)
        samplers.tell(self.study, self.notes[number]["optuna"], self._aim(number))
        return self.known[number]

    def _note(self, number: int, note: dict[str, Any]) -> None:
        self.notes[number] = note
        self.study.set_user_attr(f"{NOTE}{number}", note)


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
