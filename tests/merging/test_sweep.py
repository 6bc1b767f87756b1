"""A sweep's merges have the bits of merges, whatever it kept of the ones before."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from families import Arrays, family, save
from published_rows import NAMES, TABLE

import breadcrumbs
from breadcrumbs import checkpoint
from breadcrumbs.engine import runner
from breadcrumbs.errors import CheckpointError, MismatchError
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.methods.aggregates import Elementwise, Linear, Whole
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import Sizes, recipe
from breadcrumbs.plan.recipe import Model, Override, Recipe

#: Chunks so small that tensors have several.
SMALL = Sizes(chunk=64, arena=128 * 16)
ALPHAS = (None, 0.5, -0.3, 0, 1.7)
#: Other parameters that are in the factor of the whole step alone.
FACTORS = {"lines": [{"beta": 2}], "average": [{"base_weight": 0.5}]}
MORE: dict[str, list[dict[str, Any]]] = {
    "breadcrumbs": [{}, {"beta": 0.3, "gamma": 0.8}, {"variant": "authors", "beta": 0.5}],
    "average": [{}, {"normalize": "none", "base_weight": 0.5}, {"normalize": "none"}],
    "bottom_masking": [{"density": 0.5}, {"density": 0.5, "granularity": "model"}],
}


def settings_of(method: str) -> list[dict[str, Any]]:
    return [*MORE.get(method, TABLE[method].settings[:3] if method in TABLE else [{}])]


@pytest.fixture
def runs(monkeypatch):
    """Return the recipes whose steps a sweep found from the models themselves."""
    seen: list[Recipe] = []
    before = runner.write

    def counted(plan, *given, **more):
        seen.extend([plan.recipe] if "steps" in more else [])
        return before(plan, *given, **more)

    monkeypatch.setattr(runner, "write", counted)
    return seen


def statistics(method: str, models: list[Arrays]) -> list[Arrays] | None:
    rng = np.random.default_rng(5)
    if method == "fisher":
        return [
            {name: rng.random(x.shape) for name, x in m.items() if name != "steps"} for m in models
        ]
    inputs = [rng.standard_normal((20, 9)) for _ in models]
    return [{"b": x.T @ x} for x in inputs] if method == "regmean" else None


def merged(sources: dict[str, Any], it: Recipe, **more: Any) -> Arrays:
    """Return a merge of its own, from nothing."""
    with opening.opened(it, [sources.get(path, path) for path in it.paths], SMALL) as plan:
        arrays, _ = files.to_arrays(plan, **more)
    return arrays


def assert_same(found: Arrays, expected: Arrays, what: Any) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and found[name].shape == values.shape
        assert found[name].tobytes() == values.tobytes(), (name, what)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_series_has_the_bits_of_merges(method, dtype, runs):
    least, most = METHODS[method].aggregate.models
    number = most or max(3, least)
    for kind in ("usual", "ties"):
        base, *models = family(4, dtype, number, kind)
        given = statistics(method, models)
        names = NAMES[:number]
        sources = dict(zip(["base", *names], (base, *models), strict=True))
        sources |= {f"statistics {i}": arrays for i, arrays in enumerate(given or [])}
        mine = tuple(
            Model(name, statistics=f"statistics {i}" if given else None)
            for i, name in enumerate(names)
        )
        runs.clear()
        with Sweep(base, {k: v for k, v in sources.items() if k != "base"}, sizes=SMALL) as sweep:
            for settings in settings_of(method):
                free = [{"alpha": a} if a is not None else {} for a in ALPHAS]
                if "alpha" not in METHODS[method].parameters:
                    free = [{}, {}]
                before = len(runs)
                for other in [*free, *FACTORS.get(method, [])]:
                    it = Recipe("base", mine, method, {**settings, **other})
                    assert_same(sweep.merged(it), merged(sources, it), it.parameters)
                if scales(method) and "normalize" not in settings:
                    assert len(runs) <= before + 1
            assert runs or not scales(method)


def scales(method: str) -> bool:
    aggregate = METHODS[method].aggregate
    if isinstance(aggregate, Elementwise | Whole):
        return "alpha" in aggregate.parameters
    return isinstance(aggregate, Linear)


def test_most_methods_have_a_factor_of_the_whole_step():
    assert {name for name in METHODS if not scales(name)} == {
        *("tall_mask", "emr", "nearswap", "slerp", "nuslerp", "multislerp"),
        *("karcher", "model_stock", "fisher", "regmean", "sce", "cart", "geometric_median"),
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "weights": {"weights": (1.0, -0.5, 2.0)},
    "odd weights": {"weights": (0.1, 1 / 3, 0.7)},
    "a common weight": {"weights": (0.3, 0.3, 0.3)},
    "a weight of 0": {"weights": (1.0, 0.0, 1.0)},
    "fewer models": {"who": (0, 2)},
    "another order": {"who": (2, 0, 1)},
    "one model": {"who": (1,)},
    "no model": {"who": ()},
    "alpha of some tensors": {"overrides": (Override("*.w", {"alpha": 0.25}),)},
    "weight of one model there": {"overrides": (Override("b", {}, "model 2", 0.5),)},
    "excluded": {"exclude": ("a", "v")},
    "only": {"only": ("b", "steps")},
    "narrow": {"dtype": "float16"},
    "wide": {"dtype": "float64"},
    "onto": {"onto": "model 3", "who": (0, 1)},
    "seed": {"seed": 7},
}


@pytest.mark.parametrize("method", ["breadcrumbs", "ties", "dare_linear", "average", "tsv_m"])
@pytest.mark.parametrize("kernel", ["numpy", "native"])
def test_what_else_a_recipe_says_in_any_order(method, kernel):
    base, *models = family(9, "float32", 3)
    base["b"][:3] = 0.0
    base["b"][1] = -0.0
    models[0]["b"][:3], models[1]["b"][:2] = 0.0, -0.0
    sources = dict(zip(["base", *NAMES], (base, *models), strict=True))
    recipes = []
    for more in VARIANTS.values():
        weights = more.get("weights", (1.0, 1.0, 1.0))
        who = tuple(Model(NAMES[i], weights[i]) for i in more.get("who", (0, 1, 2)))
        rest = {key: value for key, value in more.items() if key not in ("weights", "who")}
        no_alpha = method == "average" and "alpha" in str(rest)
        if no_alpha or (method == "tsv_m" and not who):
            continue
        alphas = [{}] if method == "average" else [{"alpha": a} for a in (0.4, 0, -1)]
        recipes += [Recipe("base", who, method, alpha, **rest) for alpha in alphas]
    random.Random(0).shuffle(recipes)
    with Sweep(
        base, dict(zip(NAMES, models, strict=True)), keep=5, kernel=kernel, sizes=SMALL
    ) as sweep:
        for it in recipes:
            assert_same(sweep.merged(it), merged(sources, it), it)


@pytest.mark.parametrize("kernel", ["numpy", "native"])
def test_sums_that_no_float64_holds(kernel):
    rng = np.random.default_rng(0)
    base = {"w": (rng.standard_normal(500) * 2.0 ** rng.integers(-60, 60, 500)).astype(np.float32)}
    models = {
        name: {"w": (base["w"] * rng.standard_normal(500)).astype(np.float32)} for name in NAMES
    }
    recipes = [
        Recipe("base", tuple(map(Model, NAMES)), method, {**more, "alpha": a}, dtype="float64")
        for method, more in (("task_arithmetic", {}), ("breadcrumbs", {"beta": 0.2}))
        for a in (1, 0.3, 1e-300, 0, -2)
    ]
    with Sweep(base, models, kernel=kernel, sizes=SMALL) as sweep:
        for it in recipes:
            assert_same(sweep.merged(it), merged({"base": base, **models}, it), it)


def test_what_is_not_finite_stays_as_it_is_again():
    base, *models = family(2, "float32", 3)
    base["a"][0, 3], models[1]["b"][2, 2] = np.nan, np.inf
    sources = dict(zip(["base", *NAMES], (base, *models), strict=True))
    mine = tuple(map(Model, NAMES))
    with Sweep(base, dict(zip(NAMES, models, strict=True)), sizes=SMALL) as sweep:
        for method in ("breadcrumbs", "ties", "tatr"):
            for alpha in (1, 0.5):
                it = Recipe("base", mine, method, {"alpha": alpha}, allow_nonfinite=True)
                assert_same(sweep.merged(it), merged(sources, it), it)
            with pytest.raises(MismatchError, match=r"tensor '[ab]' has (nan|inf) at entry"):
                sweep.merged(replace(it, allow_nonfinite=False))


def test_rescaling_by_norms_is_kept_too():
    base, *tuned = family(3, "float32", 3)
    mine = tuple(map(Model, NAMES))
    sources = dict(zip(["base", *NAMES], (base, *tuned), strict=True))
    with Sweep(base, dict(zip(NAMES, tuned, strict=True)), sizes=SMALL) as sweep:
        for method in ("dare_linear", "dare_ties"):
            for models in (mine, mine[:1]):  # of one alone, it is in the factor
                for alpha in (1, 0.3):
                    it = Recipe("base", models, method, {"rescale": "l1", "alpha": alpha, "p": 0.5})
                    assert_same(sweep.merged(it), merged(sources, it), it)


def test_an_alpha_that_does_not_fit_is_refused_as_a_merge_does():
    base, *models = family(3, "bfloat16", 3)
    mine = tuple(map(Model, NAMES))
    with Sweep(base, dict(zip(NAMES, models, strict=True))) as sweep:
        sweep.merged(Recipe("base", mine, "ties", {"alpha": 1}))
        with pytest.raises(MismatchError, match="does not fit BF16"):
            sweep.merged(Recipe("base", mine, "ties", {"alpha": 1e40}))


def test_files_are_opened_once_and_steps_are_bounded(tmp_path, monkeypatch, runs):
    base, *models = family(3, "float32", 3)
    paths = [str(tmp_path / f"{name}.safetensors") for name in ("base", *NAMES)]
    for path, arrays in zip(paths, (base, *models), strict=True):
        save(path, arrays)
    opened = []
    before = checkpoint.open
    monkeypatch.setattr(
        checkpoint, "open", lambda *given: (opened.append(given), before(*given))[1]
    )
    mine = tuple(Model(path) for path in paths[1:])
    with Sweep(paths[0], dict(zip(NAMES[:2], paths[1:3], strict=True)), keep=2) as sweep:
        assert len(opened) == 3
        for beta in (0.5, 0.6, 0.7, 0.7, 0.5, 0.6):
            for alpha in (0.4, 0.8):
                it = Recipe(paths[0], mine, parameters={"beta": beta, "alpha": alpha})
                expected = breadcrumbs.merge(paths[0], paths[1:], beta=beta, alpha=alpha)
                assert_same(sweep.merged(it), expected, it)
            assert len(sweep._steps) <= 2
        assert len(runs) == 5  # the second 0.7 was kept, the others were forgotten
    assert len({given[0] for given in opened}) == 4 and len(opened) == 4 + 12 * 4
    with pytest.raises(CheckpointError, match="no such file"):
        Sweep(paths[0], {"none": "nowhere"})


def test_models_are_closed_when_others_are_open(tmp_path):
    base, *models = family(3, "float32", 4)
    paths = [str(tmp_path / f"{number}.safetensors") for number in range(5)]
    for path, arrays in zip(paths, (base, *models), strict=True):
        save(path, arrays)
    with Sweep(paths[0], most=2) as swept:
        first = None
        for some in (paths[1:3], paths[3:5], paths[1:5], paths[2:4], paths[1:3]):
            it = Recipe(paths[0], tuple(map(Model, some)), parameters={"alpha": 0.5})
            assert_same(swept.merged(it), breadcrumbs.merge(paths[0], some, alpha=0.5), it)
            first = first or swept._open[paths[1]]
            assert set(some) <= set(swept._open) and len(swept._open) <= max(3, len(some) + 1)
        assert swept._open[paths[1]] is not first  # it was closed in between


def test_a_recipe_file_is_swept_as_it_is_merged(tmp_path):
    base, *models = family(3, "float32", 2)
    for name, arrays in zip(("base", "one", "two"), (base, *models), strict=True):
        save(tmp_path / f"{name}.safetensors", arrays)
    (tmp_path / "r.yaml").write_text(
        "base: base.safetensors\nmodels: [one.safetensors, {model: two.safetensors, weight: 0.5}]\n"
        "method: ties\nparameters: {density: 0.3}\noverrides: [{tensors: a, alpha: 0.5}]\n"
    )
    it = recipe.load(tmp_path / "r.yaml")
    with Sweep(it.base) as sweep:
        for _ in range(2):
            assert_same(sweep.merged(it), merged({}, it), it)
