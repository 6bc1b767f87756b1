"""Parameters and weights of one model, and of one model in some tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from families import merge

import breadcrumbs
from breadcrumbs.engine.passes import tally as survey
from breadcrumbs.errors import RecipeError
from breadcrumbs.plan import Sizes, recipe

NAMES = ["one", "two", "three"]
WEIGHTS = [1.0, -0.5, 2.0]
#: A transform, what it has in common, and what each model has of its own.
TRANSFORMS: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]]]] = {
    "tensor": ("breadcrumbs", {}, [{"beta": 0.5}, {"beta": 0.2, "gamma": 0.8}, {}]),
    "row": ("breadcrumbs", {"granularity": "row"}, [{"beta": 0.5}, {"gamma": 0.95}, {}]),
    "model": ("breadcrumbs", {"granularity": "model"}, [{"beta": 0.5}, {"gamma": 0.95}, {}]),
    "ends": ("magnitude", {"granularity": "model"}, [{"density": 0.3}, {"density": 1}, {}]),
    "nothing": ("magnitude", {}, [{"density": 0.3}, {"density": 0}, {"density": 1}]),
    "drawn": ("dare", {}, [{"p": 0.3}, {"p": 0}, {"p": 0.8}]),
    "chances": ("della", {}, [{"density": 0.3}, {"density": 0.6, "epsilon": 0.3}, {}]),
}
AGGREGATES = {"sum": {"alpha": 0.5}, "elect": {"merge": "mean"}, "multislerp": {}, "tsv_m": {}}
transforms = pytest.mark.parametrize("transform", TRANSFORMS)


def family() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    rng = np.random.default_rng(8)
    shapes = {"a": (40, 50), "b": (13,), "s": (), "c": (3, 4, 5)}
    base = {
        name: np.asarray(rng.standard_normal(shape), "float32") for name, shape in shapes.items()
    }
    models = [
        {k: np.asarray(v + rng.standard_normal(v.shape) / 8, "float32") for k, v in base.items()}
        for _ in NAMES
    ]
    return base, models


def overrides(own: list[dict[str, Any]], tensors: str = "*") -> list[dict[str, Any]]:
    return [{"tensors": tensors, "model": n, **o} for n, o in zip(NAMES, own, strict=True) if o]


def in_two_steps(case: str, aggregate: str, weights: list[float]) -> dict[str, np.ndarray]:
    """Return the merge of models that went through the transform one by one."""
    transform, common, own = TRANSFORMS[case]
    base, models = family()
    cut = [
        breadcrumbs.merge(
            base,
            [model],
            names=[name],
            method=f"{transform}+sum",
            dtype="float64",
            **{"alpha": 1.0, **common, **mine},
        )
        for name, model, mine in zip(NAMES, models, own, strict=True)
    ]
    wide = {name: values.astype(np.float64) for name, values in base.items()}
    given = AGGREGATES[aggregate]
    return breadcrumbs.merge(wide, cut, weights=weights, method=f"none+{aggregate}", **given)


def close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=1e-13, err_msg=name)


@transforms
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_each_model_goes_through_the_transform_with_its_own(transform, aggregate):
    name, common, own = TRANSFORMS[transform]
    base, models = family()
    given = dict(
        names=NAMES,
        weights=WEIGHTS,
        method=f"{name}+{aggregate}",
        overrides=overrides(own),
        dtype="float64",
        **common,
        **AGGREGATES[aggregate],
    )
    wanted = in_two_steps(transform, aggregate, WEIGHTS)
    close(breadcrumbs.merge(base, models, **given), wanted)
    whole = breadcrumbs.merge(base, models, kernel="numpy", threads=1, **given)
    if aggregate in ("tsv_m", "multislerp") and transform == "row":
        return  # rows longer than a chunk are refused there
    given["sizes"] = Sizes(chunk=16, arena=64 * 16)
    for kernel, threads in (("numpy", 3), ("native", 2)):
        found = merge(base, models, kernel=kernel, threads=threads, **given)
        assert all(found[key].tobytes() == whole[key].tobytes() for key in base)


@pytest.mark.parametrize("transform", ["tensor", "model", "ends", "nothing"])
def test_ranks_that_no_sample_brackets_are_found_for_each_model(transform, monkeypatch):
    name, common, own = TRANSFORMS[transform]
    base, models = family()
    given = dict(names=NAMES, method=f"{name}+sum", overrides=overrides(own), **common)
    wanted = breadcrumbs.merge(base, models, **given)
    seen = []
    found = survey.refine
    monkeypatch.setattr(survey, "refine", lambda *given: seen.append(1) or found(*given))
    monkeypatch.setattr(survey, "bracket", lambda keys, *rest: np.array([0, 1, 0, 1], keys.dtype))
    again = merge(base, models, sizes=Sizes(chunk=16), kernel="numpy", **given)
    assert seen
    assert all(again[key].tobytes() == wanted[key].tobytes() for key in base)


@pytest.mark.parametrize("method", ["breadcrumbs", "ties", "dare_ties", "average", "tsv_m"])
def test_weights_differ_between_tensors(method):
    base, models = family()
    given: dict[str, Any] = dict(names=NAMES, method=method, dtype="float64")
    given |= {} if method == "average" else {"alpha": 0.5}
    found = breadcrumbs.merge(
        base,
        models,
        weights=WEIGHTS,
        overrides=[
            {"tensors": "[ab]", "weight": 3},
            {"tensors": "b", "model": "two", "weight": 0},
        ],
        **given,
    )
    for name, weights in (("a", [3, 3, 3]), ("b", [3, 0, 3]), ("c", WEIGHTS), ("s", WEIGHTS)):
        wanted = breadcrumbs.merge(base, models, weights=weights, **given)
        assert found[name].tobytes() == wanted[name].tobytes(), name


def test_what_all_models_have_of_their_own_is_what_they_have_in_common():
    base, models = family()
    given = dict(names=NAMES, method="breadcrumbs")
    own = [{"beta": 0.4, "gamma": 0.9}] * 3
    found = breadcrumbs.merge(base, models, overrides=overrides(own), **given)
    wanted = breadcrumbs.merge(base, models, **given, **own[0])
    assert all(found[key].tobytes() == wanted[key].tobytes() for key in base)


def test_later_overrides_win_and_a_models_own_go_before_the_common(tmp_path):
    made = recipe.from_mapping(
        {
            "base": "base",
            "models": [{"model": "one", "weight": 2, "parameters": {"density": 0.1}}, "two"],
            "method": "magnitude",
            "parameters": {"density": 0.9, "alpha": 0.5},
            "overrides": [
                {"tensors": "a", "density": 0.3},
                {"tensors": "a", "model": "two", "density": 0.4, "weight": 3},
                {"tensors": "b", "model": "one", "weight": 4},
            ],
        }
    )
    assert recipe.from_mapping(recipe.to_mapping(made)) == made
    from breadcrumbs import checkpoint, plan

    arrays = {key: np.zeros(4, np.float32) for key in "abc"}
    opened = [checkpoint.open(arrays, label) for label in ("base", "one", "two")]
    found = {
        tensor.name: [(own.weight, float(own.values["density"])) for own in tensor.own]
        for tensor in plan.make(made, opened[0], opened[1:]).tensors
    }
    assert found == {
        "a": [(2, 0.3), (3, 0.4)],
        "b": [(4, 0.1), (1, 0.9)],
        "c": [(2, 0.1), (1, 0.9)],
    }


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"model": "four", "beta": 0.5}, "no model 'four'.*one, two, three"),
        ({"model": "two", "alpha": 0.5}, "two: alpha says how the models are combined"),
        ({"model": "two", "beat": 0.5}, "no parameter 'beat'.*Did you mean 'beta'"),
        ({"model": "two", "beta": 0.995}, "beta 0.995 is not below gamma"),
        ({"model": "two", "weight": "much"}, "weight: 'much' is not a number"),
        ({"model": "two", "granularity": "row"}, "tensor 'a': the granularity differs"),
    ],
)
def test_what_cannot_be_of_one_model_is_refused(given, expected):
    base, models = family()
    with pytest.raises(RecipeError, match=expected):
        breadcrumbs.merge(base, models, names=NAMES, overrides=[{"tensors": "*", **given}])
