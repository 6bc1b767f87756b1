"""Races of trials on a few rows, against loops; and bounds of what was chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.tune.search import bound, parse, racing, run

pytest.importorskip("optuna")

TASKS = ("a", "b")
#: Which of 60 rows the base and the fine-tuned model answer right.
BASE = np.arange(60) % 2 == 0
OWN = np.arange(60) % 10 != 0
KEYS = [str(number).encode() for number in range(60)]


def anchored(share: float = 0.2) -> dict[str, racing.Anchors]:
    return {task: racing.anchors(BASE, OWN, share, 0, task, KEYS) for task in TASKS}


def test_anchors_stand_for_all_rows():
    part = np.where(BASE == OWN, np.where(BASE, 0, 1), 2)
    for share in (0.01, 0.1, 0.5):
        one = racing.anchors(BASE, OWN, share, 3, "a", KEYS)
        assert list(one.places) == sorted(set(one.places))
        for number in set(part):  # each part counts for what it is of all rows
            mine = [w for p, w in zip(one.places, one.weights, strict=True) if part[p] == number]
            assert math.isclose(sum(mine), np.mean(part == number))
        back = racing.anchors(BASE[::-1], OWN[::-1], share, 3, "a", KEYS[::-1])
        assert {59 - place for place in back.places} == set(one.places)  # whatever the order
    some = racing.anchors(BASE, OWN, 0.1, 3, "a", KEYS)
    assert len(some.places) <= 8
    apart = np.mean([part[place] == 2 for place in some.places])
    assert apart > np.mean(part == 2)  # more where the two disagree
    assert racing.anchors(BASE, OWN, 0.1, 4, "a", KEYS) != some
    estimates, right = [], np.random.default_rng(0).random(60) < np.where(part == 2, 0.5, 0.9)
    for seed in range(400):
        one = racing.anchors(BASE, OWN, 0.2, seed, "a", KEYS)
        estimates.append(one.mean(right[list(one.places)]))
    assert abs(np.mean(estimates) - right.mean()) < 0.01
    every = racing.anchors(BASE, BASE, 1.0, 0, "a", KEYS)
    assert math.isclose(every.mean(right), right.mean())


def test_the_best_third_stays_but_for_those_surely_worse():
    rows = anchored()
    right = {task: np.ones(len(rows[task].places), bool) for task in TASKS}

    def raced(wrong: int) -> racing.Raced:
        mine = {task: one.copy() for task, one in right.items()}
        for one in mine.values():
            one[:wrong] = False
        return racing.Raced({}, {}, mine)

    every = {number: raced(number) for number in range(9)}
    scores = {number: -float(number) for number in every}
    assert racing.kept(scores, every, range(9), rows, paired=False) == {0, 1, 2}
    assert racing.kept(scores, every, (1, 5), rows, paired=False) == {1}
    last = {**every, 2: raced(8)}
    assert racing.kept(scores, last, range(9), rows, paired=True) == {0, 1}
    same = {number: raced(0) for number in range(9)}
    assert racing.kept(dict.fromkeys(same, 1.0), same, range(9), rows, True) == {0, 1, 2}
    back = racing.Raced.of(every[4].to_mapping(), rows)
    assert all(np.array_equal(back.right[task], every[4].right[task]) for task in TASKS)


class Race:
    """Rows are right up to a threshold that depends on alpha; all that is asked is noted."""

    identity: dict = {"share": 0.2}  # noqa: RUF012

    def __init__(self, stop: int | None = None):
        self.rows, self.stop = anchored(), stop
        self.few: list[float] = []
        self.all: list[float] = []

    def right(self, it: Recipe) -> np.ndarray:
        return np.arange(60) * 7919 % 60 < 60 - 40 * abs(float(it.parameters["alpha"]) - 0.7)

    def asked(self, where: list[float], it: Recipe) -> None:
        if self.stop is not None and len(self.few) + len(self.all) >= self.stop:
            raise KeyboardInterrupt
        where.append(float(it.parameters["alpha"]))

    def __call__(self, recipes):
        for it in recipes:
            self.asked(self.few, it)
            mine = {task: self.right(it)[list(one.places)] for task, one in self.rows.items()}
            values = {task: one.mean(mine[task]) for task, one in self.rows.items()}
            yield it, racing.Raced(values, values, mine)

    def evaluate(self, recipes):
        for it in recipes:
            self.asked(self.all, it)
            values = dict.fromkeys(TASKS, float(self.right(it).mean()))
            yield it, values, values


def searched(race: Race, **more):
    template = Recipe("base", (Model("x", name="a"), Model("y", name="b")))
    space = parse(("task_arithmetic",), [("alpha", "0.1:1.5:0.1")], TASKS)
    more = {"sampler": "grid", "batch": 4} | more
    return run(template, space, race.evaluate, tasks=TASKS, race=race, **more)


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_race_finds_the_best_by_a_few_whole_scores(sampler, tmp_path):
    race = Race()
    more = {"sampler": sampler, "trials": 15, "storage": tmp_path / "whole.log"}
    found = searched(race, **more)
    assert found.best.point["alpha"] == 0.7 and not found.best.part
    assert len(race.all) == len(set(race.all)) <= len(set(race.few)) / 2
    assert {t.point["alpha"] for t in found.whole} == set(race.all)
    assert all(trial in found.whole for trial in found.pareto)
    for stop in (2, 5, 9):  # interrupted anywhere, it goes on as if it had not been
        more["storage"] = tmp_path / f"{stop}.log"
        with pytest.raises(KeyboardInterrupt):
            searched(Race(stop), **more)
        after = Race()
        assert searched(after, **more).trials == found.trials
        assert len(after.few) + len(after.all) == len(race.few) + len(race.all) - stop


# --- bounds ---


def tail(k: int, n: int, p: float) -> float:
    """Return the chance of k or more of n."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))


def test_the_bound_is_clopper_and_pearsons_with_a_union():
    for right, trials in ((30, 1), (37, 50), (40, 10), (1, 3)):
        found = bound.lower({"a": right, "b": 20}, {"a": 40, "b": 40}, trials)
        assert math.isclose(tail(right + 20, 80, found), 0.05 / trials, rel_tol=1e-6)
    assert bound.lower({"a": 0}, {"a": 5}, 3) == 0.0
    found = bound.lower({"a": 9, "b": 50}, {"a": 10, "b": 60}, 7)  # of other sizes: each its own
    each = [bound.lower({"x": k}, {"x": n}, 14) for k, n in ((9, 10), (50, 60))]
    assert math.isclose(found, sum(each) / 2)
    assert "tpe" not in bound.FIXED


def test_the_bound_holds_for_the_best_of_many():
    """Of 40 models that are right by 0.7 and 0.8 of the rows, the best of 200 draws each."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        right = rng.binomial(100, [[0.7, 0.8]] * 40)
        best = right[right.sum(1).argmax()]
        least = bound.lower({"a": best[0], "b": best[1]}, {"a": 100, "b": 100}, 40)
        wrong += least > 0.75
    assert wrong <= 0.05 * 200
