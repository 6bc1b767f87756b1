"""Searches over the demo's family, scored on its validation images; spaces, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import breadcrumbs
from breadcrumbs.cli.group import main
from breadcrumbs.demo.model import load_family, logits
from breadcrumbs.errors import RecipeError, ScoreError
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import recipe as recipes
from breadcrumbs.plan.recipe import Model, Recipe
from breadcrumbs.tune.search import Found, Trial, parse, run, write
from breadcrumbs.tune.search import recipe as recipe_of
from breadcrumbs.tune.search.objective import OBJECTIVES, get
from breadcrumbs.tune.search.samplers import SAMPLERS
from breadcrumbs.tune.search.space import Range, Values, dimension

optuna = pytest.importorskip("optuna")

TASKS = ("digits", "fashion", "turns")
FAMILY = load_family()
TEMPLATE = Recipe(
    str(FAMILY.base), tuple(Model(str(FAMILY.finetuned[task]), name=task) for task in TASKS)
)


def accuracy(weights: Any, task: str) -> float:
    """Return the accuracy on the first 20 validation images."""
    rows = FAMILY.tasks[task].validation
    answers = logits(weights, FAMILY.tasks[task].head, rows.images[:20]).argmax(axis=1)
    return float(np.mean(answers == rows.labels[:20]))


class Scored:
    """Scores recipes on validation images, and counts what it was asked."""

    def __init__(self, stop: int | None = None, order: random.Random | None = None):
        self.asked: list[Recipe] = []
        self.batches: list[int] = []
        self.stop, self.order = stop, order

    def __call__(self, given: Sequence[Recipe]) -> Iterator[tuple[Recipe, dict, dict]]:
        self.batches.append(len(given))
        turn = list(given)
        if self.order is not None:
            self.order.shuffle(turn)
        for it in turn:
            if self.stop is not None and len(self.asked) >= self.stop:
                raise KeyboardInterrupt
            self.asked.append(it)
            yield it, *scores(it)


KNOWN: dict[str, tuple[dict[str, float], dict[str, float]]] = {}


def scores(it: Recipe) -> tuple[dict[str, float], dict[str, float]]:
    key = recipes.to_yaml(it)
    if key not in KNOWN:
        if not OWN:
            for task in TASKS:
                OWN[task] = accuracy(dict(breadcrumbs.open(FAMILY.finetuned[task])), task)
        merged = SWEEP.merged(it)
        values = {model.name: accuracy(merged, model.name) for model in it.models}
        KNOWN[key] = values, {task: value / OWN[task] for task, value in values.items()}
    return KNOWN[key]


OWN: dict[str, float] = {}
SWEEP = Sweep(str(FAMILY.base))


def space(*flags: str, methods: Sequence[str] = ("breadcrumbs",)):
    return parse(methods, [tuple(flag.split("=", 1)) for flag in flags], TASKS)


def found(*flags: str, methods: Sequence[str] = ("breadcrumbs",), **more: Any) -> Found:
    evaluate = more.pop("evaluate", None) or Scored()
    return run(TEMPLATE, space(*flags, methods=methods), evaluate, tasks=TASKS, **more)


# Spaces

DIMENSIONS = {
    "alpha=0.4": Values((0.4,), True),
    "alpha=-1": Values((-1.0,), True),
    "alpha=0.1:1.5": Range(0.1, 1.5),
    "alpha=0.1:0.5:0.1": Values((0.1, 0.2, 0.3, 0.4, 0.5), True),
    "alpha=0.1:0.55:0.2": Values((0.1, 0.3, 0.5), True),
    "alpha=1e-3:1e-1:log": Range(0.001, 0.1, log=True),
    "beta=0.95,0.85 , 0.9": Values((0.85, 0.9, 0.95), True),
    "variant=paper,authors": Values(("paper", "authors")),
    "weight.turns=0:2": Range(0.0, 2.0),
}


@pytest.mark.parametrize("flag", DIMENSIONS)
def test_a_flag_is_a_dimension(flag):
    made = space(flag)
    (dimension_,) = [*made.parameters["breadcrumbs"].values(), *made.weights.values()]
    assert dimension_ == DIMENSIONS[flag]


def test_every_parameter_of_every_method_can_be_given():
    for name, method in METHODS.items():
        for key, parameter in method.parameters.items():
            default = {"task": "1"}.get(key, parameter.default)
            value = "1" if default is None else str(default)
            if key == "granularity":
                value = "tensor"
            made = parse([name], [(key, value)], TASKS).parameters[name][key]
            assert isinstance(made, Values) and len(made.values) == 1, (name, key)


def test_several_methods_have_parameters_of_their_own():
    made = space(
        "alpha=0.5:1", "ties.alpha=1", "density=0.1:0.3", "k=1,2", "weight.[df]*=1,2",
        methods=["breadcrumbs", "ties", "consensus"],
    )  # fmt: skip
    assert {name: list(mine) for name, mine in made.parameters.items()} == {
        "breadcrumbs": ["alpha", "density"],
        "ties": ["alpha", "density"],
        "consensus": ["alpha", "k"],
    }
    assert made.parameters["ties"]["alpha"] == Values((1.0,), True)
    assert made.parameters["consensus"]["k"] == Values((1, 2), True)
    assert list(made.weights) == ["digits", "fashion"]
    assert made.to_mapping()["methods"] == ["breadcrumbs", "ties", "consensus"]
    json.dumps(made.to_mapping())


WRONG = {
    "alfa=1": r"-p alfa: .* have no parameter 'alfa'.*Did you mean 'alpha'\?",
    "alpha=x": "-p alpha: 'x' is not a number",
    "alpha=1:x": "-p alpha: 'x' is not a number",
    "alpha=2:1": "2 is not below 1",
    "alpha=1:1": "1 is not below 1",
    "alpha=0:1:log": "a logarithm needs a range above 0",
    "alpha=0:1:-0.1": "the step -0.1 is not above 0",
    "alpha=0:1:0": "the step 0 is not above 0",
    "alpha=0:1:1e-9": "1,000,000,001 steps, more than 10,000",
    "alpha=0:1:2:3": "is not a range. Give LOW:HIGH",
    "alpha=0:1,2": "is not a range. Give LOW:HIGH",
    "alpha=": "-p alpha: '' is not a number",
    "beta=0.5:1.5": r"-p beta=0.5:1.5: '1.5' is not possible. Give 0 to 1",
    "variant=paper,author": r"'author' is not possible. Give paper, authors",
    "ties.density=0.1": r"'ties' is not one of the methods that are searched: breadcrumbs",
    "breadcrumbs.k=1": "have no parameter 'k'",
    "weight.turn=1": r"there is no model 'turn'. Did you mean 'turns'\?",
    "weight.turns=nan": "'nan' is not a number",
}


@pytest.mark.parametrize("flag", WRONG)
def test_what_a_flag_cannot_say(flag):
    with pytest.raises(RecipeError, match=WRONG[flag]) as caught:
        space(flag)
    assert "\n" not in str(caught.value)


def test_a_flag_given_twice_and_whole_numbers():
    with pytest.raises(RecipeError, match="-p alpha: is given twice"):
        space("alpha=1", "alpha=2")
    k = METHODS["consensus"].parameters["k"]
    assert dimension("k", "1:3", k) == Range(1, 3, whole=True)
    assert dimension("k", "1:3:1", k) == Values((1, 2, 3), True)
    for text in ("1:2:0.5", "0.5:2", "1,1.5"):
        with pytest.raises(RecipeError, match="whole number"):
            dimension("k", text, k)


@given(st.floats(-100, 100), st.floats(1e-6, 200), st.floats(0, 1))
def test_a_rounded_number_stays_in_its_range_and_near(low, width, share):
    assume_high = low + width
    if not low < assume_high:
        return
    value = low + share * (assume_high - low)
    rounded = Range(low, assume_high).rounded(value)
    assert low <= rounded <= assume_high
    assert abs(rounded - value) <= 0.002 * (assume_high - low)


def test_values_that_contradict_each_other_are_refused_before_anything_is_scored():
    scored = Scored()
    with pytest.raises(RecipeError, match="gamma"):
        found("beta=0.95,0.99", "gamma=0.5:0.9", evaluate=scored)
    with pytest.raises(RecipeError, match="density"):
        found("beta=0.9", "density=0.1:0.2", evaluate=scored)
    assert not scored.asked


# Searches


def test_a_grid_is_gone_through_with_alpha_first():
    scored = Scored()
    told = []
    flags = "alpha=0.3,0.6", "ties.density=0.1,0.2", "beta=0.9"
    it = found(
        *flags, methods=["breadcrumbs", "ties"], sampler="grid", batch=4, evaluate=scored,
        told=lambda trial, total: told.append((trial.number, total)),
    )  # fmt: skip
    points = [trial.point for trial in it.trials]
    assert points == [
        {"method": "breadcrumbs", "beta": 0.9, "alpha": 0.3},
        {"method": "breadcrumbs", "beta": 0.9, "alpha": 0.6},
        {"method": "ties", "density": 0.1, "alpha": 0.3},
        {"method": "ties", "density": 0.1, "alpha": 0.6},
        {"method": "ties", "density": 0.2, "alpha": 0.3},
        {"method": "ties", "density": 0.2, "alpha": 0.6},
    ]
    assert scored.batches == [4, 2] and told == [(number, 6) for number in range(6)]
    for trial, made in zip(it.trials, scored.asked, strict=True):
        assert made == recipe_of(TEMPLATE, trial.point)
        values, normalised = scores(made)
        assert (trial.values, trial.normalised) == (values, normalised)
        assert math.isclose(trial.score, np.mean(list(normalised.values())))
    assert it.best.score == max(trial.score for trial in it.trials)
    assert it.best == next(trial for trial in it.trials if trial.score == it.best.score)


def test_impossible_points_of_a_grid_are_left_out_and_ranges_need_steps():
    it = found("beta=0.8,0.9,0.95", "gamma=0.9,0.99", sampler="grid")
    assert it.left_out == 2 and len(it.trials) == 4
    with pytest.raises(RecipeError, match=r"beta=0.8:0.9 has no steps. Give some, as in beta=0.8:"):
        found("beta=0.8:0.9", sampler="grid")


SPACE = "alpha=0.1:1.5", "beta=0.8:0.98", "gamma=0.9:0.999"
CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "grid": (("alpha=0.2:1:0.2", "beta=0.8,0.9"), ("breadcrumbs",), 10),
    "random": (SPACE, ("breadcrumbs",), 9),
    "tpe": (("alpha=0.1:1.5", "merge=mean,sum"), ("breadcrumbs", "ties"), 13),
    "cmaes": (SPACE, ("breadcrumbs",), 12),
    "qmc": (SPACE, ("breadcrumbs",), 9),
    "nsga2": (SPACE, ("breadcrumbs",), 15),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_neither_timing_nor_interruptions_change_what_is_tried(sampler, tmp_path):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    flags, methods, trials = CASES[sampler]
    settings = dict(methods=methods, sampler=sampler, trials=trials, batch=3, seed=5)
    straight = found(*flags, **settings)
    assert len(straight.trials) == -(-trials // 3) * 3 if sampler != "grid" else 10
    assert len({json.dumps(trial.point) for trial in straight.trials}) > trials // 2
    shuffled = found(*flags, **settings, evaluate=Scored(order=random.Random(1)))
    assert shuffled == straight
    storage = tmp_path / "search.log"
    asked: list[Recipe] = []
    for stop in itertools.chain([0, 2, 1, 4], itertools.repeat(5)):
        scored = Scored(stop, random.Random(stop))
        try:
            again = found(*flags, **settings, evaluate=scored, storage=storage)
            break
        except KeyboardInterrupt:
            pass
        finally:
            asked += scored.asked
    assert again == straight
    times = Counter(recipes.to_yaml(it) for it in asked)
    assert set(times.values()) == {1}, "a recipe was scored again"
    if sampler in ("random", "tpe", "nsga2"):
        assert found(*flags, **{**settings, "seed": 6}) != straight


def test_a_search_goes_on_with_more_trials(tmp_path):
    storage = tmp_path / "search.log"
    first = found("alpha=0.1:1.5", trials=4, batch=2, storage=storage)
    scored = Scored()
    more = found("alpha=0.1:1.5", trials=8, batch=2, storage=storage, evaluate=scored)
    assert more.trials[:4] == first.trials and len(scored.asked) == 4
    assert more == found("alpha=0.1:1.5", trials=8, batch=2)
    assert found("alpha=0.1:1.5", trials=4, batch=2, storage=storage) == first


def test_better_points_are_tried_more_often():
    def near(it: Recipe) -> float:
        return -abs(float(it.parameters["alpha"]) - 0.7)

    def evaluate(given: Sequence[Recipe]) -> Iterator[tuple[Recipe, dict, dict]]:
        return ((it, dict.fromkeys(TASKS, near(it)), {}) for it in given)

    pytest.importorskip("cmaes")
    for sampler in ("tpe", "cmaes"):
        it = found(
            "alpha=0:10", sampler=sampler, trials=60, batch=2, objective=get("raw"),
            evaluate=evaluate,
        )  # fmt: skip
        late = [abs(trial.point["alpha"] - 0.7) for trial in it.trials[-20:]]
        assert abs(it.best.point["alpha"] - 0.7) < 0.3 and np.median(late) < 1.5, sampler


def test_the_same_point_is_scored_once():
    scored = Scored()
    it = found("alpha=0.3,0.6", sampler="random", trials=20, batch=4, evaluate=scored)
    assert len(it.trials) == 20 and len(scored.asked) == 2


def test_points_that_are_impossible_are_asked_again():
    it = found("beta=0.9:0.99", "gamma=0.9:0.99", sampler="random", trials=9, seed=1)
    assert len(it.trials) == 9
    assert all(trial.point["beta"] < trial.point["gamma"] for trial in it.trials)


def test_weights_are_searched_and_merged():
    scored = Scored()
    it = found("weight.*=0.5:1.5", "alpha=0.4", trials=2, sampler="random", evaluate=scored)
    for trial, made in zip(it.trials, scored.asked, strict=True):
        assert [m.weight for m in made.models] == [trial.point[f"weight.{t}"] for t in TASKS]
        assert len({m.weight for m in made.models}) == 3


CHANGES: dict[str, dict[str, Any]] = {
    "space breadcrumbs.alpha was [0.1, 1.5, false, false], and is [0.1, 1.4": {
        "flags": ["alpha=0.1:1.4"]
    },
    "seed was 0, and is 1": {"seed": 1},
    'sampler was "tpe", and is "random"': {"sampler": "random"},
    "batch was 2, and is 3": {"batch": 3},
    "objective was": {"objective": OBJECTIVES["min"]},
    "recipe models was": {"template": Recipe(TEMPLATE.base, TEMPLATE.models[::-1])},
    'rows digits was "a", and is "b"': {"identity": {"rows": {"digits": "b"}}},
    "rows was": {"identity": {}},
}


@pytest.mark.parametrize("message", CHANGES)
def test_another_search_does_not_go_on_from_a_storage(message, tmp_path):
    storage = tmp_path / "search.log"
    usual = dict(sampler="tpe", seed=0, batch=2, trials=2, identity={"rows": {"digits": "a"}})
    run(TEMPLATE, space("alpha=0.1:1.5"), Scored(), tasks=TASKS, storage=storage, **usual)
    other = dict(CHANGES[message])
    made = space(*other.pop("flags", ["alpha=0.1:1.5"]))
    template = other.pop("template", TEMPLATE)
    scored = Scored()
    with pytest.raises(RecipeError, match="is of another search") as caught:
        run(template, made, scored, tasks=TASKS, storage=storage, **{**usual, **other})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not scored.asked


@pytest.mark.parametrize("content", [b"no journal\n", b"{}\n", b"\x00\xff", b"[1]\n{}\n", b"1"])
def test_a_file_that_is_no_storage_is_refused_and_left(content, tmp_path):
    storage = tmp_path / "search.log"
    storage.write_bytes(content)
    with pytest.raises(
        RecipeError, match=r"search.log, line \d: cannot be used as the st"
    ) as caught:
        found("alpha=0.1:1.5", trials=1, storage=storage)
    assert "\n" not in str(caught.value)
    assert storage.read_bytes() == content
    with pytest.raises(RecipeError, match="cannot be used"):
        found("alpha=0.1:1.5", trials=1, storage=tmp_path / "none" / "search.log")


def test_a_storage_that_was_cut_off_anywhere_goes_on(tmp_path):
    storage = tmp_path / "search.log"
    settings = dict(trials=14, batch=2, storage=storage)
    straight = found("alpha=0.1:1.5", "beta=0.8:0.95", **settings)
    lines = storage.read_bytes().splitlines(keepends=True)
    whole = b"".join(lines)
    ends = [len(b"".join(lines[:-number])) for number in range(1, 36)]
    for size in (*ends, len(whole) - 1, len(whole) // 2, len(whole) * 2 // 3, 5, 0):
        storage.write_bytes(whole[:size])
        assert found("alpha=0.1:1.5", "beta=0.8:0.95", **settings) == straight


# Objectives and what was found


def test_objectives(tmp_path):
    values, normalised = {"a": 0.5, "b": 0.8}, {"a": 1.0, "b": 0.9}
    assert OBJECTIVES["mean"](values, normalised) == 0.95
    assert OBJECTIVES["raw"](values, normalised) == 0.65
    assert OBJECTIVES["min"](values, normalised) == 0.9
    file = tmp_path / "mine.py"
    file.write_text(
        "def worst(values): return min(values.values())\ndef wrong(values): return values['c']\n"
        "def text(values): return 'high'\ndef nan(values): return float('nan')\nname = 1\n"
    )
    assert get(f"{file}:worst")(values, normalised) == 0.5
    for name in ("wrong", "text", "nan"):
        with pytest.raises(ScoreError, match=rf"mine.py:{name}: (failed|is nan)"):
            get(f"{file}:{name}")(values, normalised)
    for text in (f"{file}:none", f"{file}:name", "meen", f"{tmp_path}/no.py:f", "a.py"):
        with pytest.raises(ScoreError, match="--objective"):
            get(text)
    with pytest.raises(ScoreError, match=r"b has no normalised value"):
        OBJECTIVES["mean"](values, {"a": 1.0, "b": None})
    worst = found("alpha=0.2:1:0.2", sampler="grid", objective=get(f"{file}:worst"))
    assert worst.best.score == max(min(trial.values.values()) for trial in worst.trials)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_the_pareto_front_is_what_none_beats(rows):
    trials = [
        Trial(
            i, {"method": "ties"}, sum(row) / 3, dict(zip("abc", map(float, row), strict=True)), {}
        )
        for i, row in enumerate(rows)
    ]
    beaten = {
        row
        for row in rows
        if any(all(x >= y for x, y in zip(o, row, strict=True)) and o != row for o in rows)
    }
    front = Found(trials, "raw").pareto
    assert [rows[t.number] for t in front] == sorted(
        set(rows) - beaten, key=lambda row: (-sum(row), rows.index(row))
    )
    assert front[0].score == Found(trials, "raw").best.score


def test_scores_that_do_not_come_are_an_error():
    with pytest.raises(ScoreError, match="no scores came of 2 of 2 recipes"):
        found("alpha=0.1:1", batch=2, trials=2, evaluate=lambda given: iter(()))
    with pytest.raises(ScoreError, match="no score came of turns"):
        some = {"digits": 1.0, "fashion": 1.0}
        found("alpha=0.1:1", trials=1, evaluate=lambda given: iter([(given[0], some, some)]))


def test_a_setting_found_on_few_models_is_for_all(tmp_path):
    few = Recipe(TEMPLATE.base, TEMPLATE.models[:2])
    made = space("alpha=0.2:1:0.4", "beta=0.9")
    it = run(few, made, Scored(), tasks=TASKS[:2], sampler="grid")
    assert all(set(trial.values) == set(TASKS[:2]) for trial in it.trials)
    best = recipe_of(TEMPLATE, it.best.point)
    path = tmp_path / "best.yaml"
    write(path, best, ["Chosen by a search.", "On two tasks."])
    assert path.read_text().startswith("# Chosen by a search.\n# On two tasks.\nbase:")
    assert recipes.load(path) == best and len(best.models) == 3
    result = CliRunner().invoke(main, ["merge", str(path), "-o", str(tmp_path / "merged"), "-q"])
    assert result.exit_code == 0, result.output
    merged = breadcrumbs.open(tmp_path / "merged")
    for name, values in SWEEP.merged(best).items():
        assert merged[name].tobytes() == values.tobytes()


def test_samplers_that_there_are_not():
    with pytest.raises(RecipeError, match=r"there is no sampler 'tpes'. Did you mean 'tpe'\?"):
        found("alpha=0.1:1", sampler="tpes")
