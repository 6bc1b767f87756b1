"""A suite as a race has it: anchors of its validation rows, and scores of recipes on these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import SuiteError, listing
from breadcrumbs.evaluate.data.drawn import keys_of, picked
from breadcrumbs.evaluate.data.task import Rows, Split
from breadcrumbs.evaluate.foundations.foundation import Answering
from breadcrumbs.evaluate.results.results import Row
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.tune.search import racing
from breadcrumbs.tune.search.racing import Raced

if TYPE_CHECKING:
    from breadcrumbs.evaluate.scoring.pool import Pool
    from breadcrumbs.evaluate.scoring.settings import Settings
    from breadcrumbs.evaluate.suite import Suite


class Anchored:
    """`running.Race` of a suite. own: rows of the fine-tuned models on all validation rows.

    suite: with a split ``anchors``, to be handed to the pool that scores recipes, and then given to
    `on`. SuiteError where a task has no fine-tuned model, or is answered in a way of its own.
    """

    def __init__(
        self, suite: Suite, names: Sequence[str], settings: Settings, share: float, seed: int
    ):
        from breadcrumbs.evaluate.scoring.pool import Pool

        self.names: list[str] = list(names)
        self._pool: Pool | None = None
        _check(suite, names)
        with Pool(suite, settings) as pool:
            self.own = pool.own(names, "validation")
            scored = pool.score([(suite.base, names)], "validation")
            base = {row.task: row for _, rows in scored for row in rows}
        own = {row.task: row for row in self.own}
        lacking = [name for name in names if name not in own]
        if lacking:
            raise SuiteError(
                f"suite {suite.name}: {listing(lacking)} has no `finetuned`, and anchors are chosen"
                " by what it answers. Leave --race out."
            )
        self.rows = {
            name: racing.anchors(
                right_of(base[name]), right_of(own[name]), share, seed, name,
                keys_of(suite.task(name).rows("validation")),
            )
            for name in names
        }  # fmt: skip
        self.identity = {
            "share": share,
            "anchors": {name: list(one.places) for name, one in self.rows.items()},
        }
        tasks = tuple(
            replace(
                task,
                read=_Read(task.read, self.rows[task.name].places),
                open=(*task.open, "anchors"),
            )
            if task.name in self.rows
            else task
            for task in suite.tasks
        )
        self.suite = replace(suite, tasks=tasks)

    def on(self, pool: Pool) -> Anchored:
        """Return this, scoring in that pool."""
        self._pool = pool
        return self

    def __call__(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, Raced]]:
        assert self._pool is not None
        whole = {row.task: row.value for row in self.own}
        right: dict[int, dict[str, np.ndarray]] = {}
        for number, some in self._pool.score([(it, self.names) for it in recipes], "anchors"):
            mine = right.setdefault(number, {})
            mine |= {row.task: right_of(row) for row in some}
            if len(mine) < len(self.names):
                continue
            values = {name: self.rows[name].mean(mine[name]) for name in self.names}
            normalised = {
                name: value / whole[name] if whole[name] > 0 else None
                for name, value in values.items()
            }
            yield recipes[number], Raced(values, normalised, mine)


def _check(suite: Suite, names: Sequence[str]) -> None:
    """Raise SuiteError for tasks whose score is not a mean over rows."""
    for name in names:
        task, made = suite.task(name), suite.foundation
        if task.metric != "accuracy" or (isinstance(made, Answering) and made.answers(task)):
            raise SuiteError(
                f"task {name!r}: a race counts right answers of rows, and this task is scored in"
                " another way. Leave --race out, or the task with --task."
            )


def right_of(row: Row) -> np.ndarray:
    """Return which rows are answered right, (rows,) bool."""
    assert row.hits is not None
    return np.unpackbits(np.frombuffer(row.hits, np.uint8), count=row.items).astype(bool)


@dataclass(frozen=True)
class _Read:
    """Reads the rows of a task; of the split ``anchors``, these of the validation rows."""

    read: Callable[[Split], Rows]
    places: tuple[int, ...]

    def __call__(self, split: Split) -> Rows:
        if split != "anchors":
            return self.read(split)
        rows = self.read("validation")
        digest = blake3(f"{rows.digest} {self.places}".encode()).hexdigest()
        return Rows(picked(rows.inputs, self.places), rows.labels[list(self.places)], digest)
