"""What a recipe and checkpoints plan together, and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference

import breadcrumbs
from breadcrumbs.errors import BreadcrumbsError, MismatchError, RecipeError
from breadcrumbs.merging import opening
from breadcrumbs.plan.recipe import Model, Recipe, override

RNG = np.random.default_rng(0)


def arrays(**shapes) -> dict[str, np.ndarray]:
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def plan(base, models, **arguments: Any):
    """Return the plan; ``overrides`` are plain data."""
    overrides = arguments.pop("overrides", [])
    recipe = Recipe(
        "base",
        tuple(Model(f"model {i + 1}") for i in range(len(models))),
        overrides=tuple(override(o, "overrides") for o in overrides),
        **arguments,
    )
    with opening.opened(recipe, [base, *models]) as made:
        return made


def refused(kind: type[BreadcrumbsError], expected: str, base, models, **arguments) -> str:
    with pytest.raises(kind, match=expected) as caught:
        plan(base, models, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BASE = {
    **arrays(head=(3, 4), body=(5,), norm=(4,)),
    "steps": np.arange(3),
    "flag": np.array([True]),
}
MODEL = {
    **{name: values + 1 for name, values in BASE.items() if name != "flag"},
    "flag": ~BASE["flag"],
}


def test_a_plan_counts_what_it_will_do():
    made = plan(BASE, [MODEL, MODEL])
    assert [tensor.name for tensor in made.tensors] == list(BASE)
    assert [tensor.name for tensor in made.merged] == ["head", "body", "norm"]
    assert {t.name: t.copied for t in made.tensors if t.copied} == {
        "steps": "not a weight",
        "flag": "not a weight",
    }
    assert made.bytes_read == 3 * 21 * 4 + 3 * 8 + 1
    assert made.bytes_written == 21 * 4 + 3 * 8 + 1
    assert plan(BASE, [MODEL], dtype="bfloat16").bytes_written == 21 * 2 + 3 * 8 + 1


def test_what_is_not_a_weight_is_the_bases_unless_the_models_agree():
    given: dict[str, Any] = dict(method="task_arithmetic", dtype="float16")
    merged = breadcrumbs.merge(BASE, [MODEL, {**MODEL, "steps": MODEL["steps"] + 1}], **given)
    assert merged["steps"].tobytes() == BASE["steps"].tobytes()
    assert merged["steps"].dtype == np.int64 and merged["flag"].tolist() == [False]
    assert merged["head"].dtype == np.float16


@pytest.mark.parametrize(
    ("arguments", "merged"),
    [
        (dict(exclude=("head",)), ["body", "norm"]),
        (dict(exclude=("*o*",)), ["head"]),
        (dict(only=("*o*",)), ["body", "norm"]),
        (dict(only=("*o*",), exclude=("no*",)), ["body"]),
        (dict(only=("steps",)), []),
    ],
)
def test_globs_choose_what_is_merged(arguments, merged):
    made = plan(BASE, [MODEL], **arguments)
    assert [tensor.name for tensor in made.merged] == merged
    found = breadcrumbs.merge(BASE, [MODEL], method="average", **arguments)
    taken = [t.name for t in made.tensors if t.copied == "not a weight"]
    for name, values in found.items():
        expected = MODEL[name] if name in merged or name in taken else BASE[name]
        assert values.tobytes() == expected.tobytes()


def test_a_single_glob_may_be_a_text():
    found = breadcrumbs.merge(BASE, [MODEL], method="average", exclude="head", only=["h*", "b*"])
    assert found["head"].tobytes() == BASE["head"].tobytes()
    assert found["body"].tobytes() == MODEL["body"].tobytes()


@pytest.mark.parametrize("key", ["exclude", "only", "overrides"])
def test_globs_that_match_nothing(key):
    value = [{"tensors": "haed", "alpha": 1}] if key == "overrides" else ("haed",)
    refused(
        RecipeError,
        f"{key}: 'haed' matches no tensor of base. Did you mean 'head'.*inspect",
        BASE,
        [MODEL],
        **{key: value},
    )


def test_excluded_tensors_need_not_fit():
    other = {**MODEL, "head": np.zeros((9, 9), np.float32)}
    refused(MismatchError, "shape", BASE, [other])
    assert plan(BASE, [other], exclude=("head",)).merged


# --- overrides ---------------------------------------------------------------------------------


def test_overrides_hold_for_their_tensors_and_later_ones_win():
    overrides = [
        {"tensors": "*o*", "alpha": 0.5},
        {"tensors": "norm", "alpha": 2, "density": 1},
    ]
    given: dict[str, Any] = dict(method="bottom_masking", density=0.5, alpha=1)
    found = breadcrumbs.merge(BASE, [MODEL], overrides=overrides, **given)
    weights = {name: BASE[name] for name in ("head", "body", "norm")}
    tuned = {name: MODEL[name] for name in weights}
    for name, parameters in {
        "head": dict(density=0.5, alpha=1),
        "body": dict(density=0.5, alpha=0.5),
        "norm": dict(density=1, alpha=2),
    }.items():
        expected = reference.merge(
            {name: weights[name]}, [{name: tuned[name]}], method="bottom_masking", **parameters
        )
        assert found[name].tobytes() == expected[name].tobytes()


def test_only_alpha_differs_where_all_tensors_are_ranked_together():
    given: dict[str, Any] = dict(method="bottom_masking", granularity="model", density=0.5)
    overrides = [{"tensors": "head", "alpha": 0.5}]
    found = breadcrumbs.merge(BASE, [MODEL], overrides=overrides, **given)
    whole = reference.merge(BASE, [MODEL], **given)
    half = reference.merge(BASE, [MODEL], **given, alpha=0.5)
    assert found["head"].tobytes() == half["head"].tobytes()
    assert found["body"].tobytes() == whole["body"].tobytes()
    for change in ({"density": 0.4}, {"granularity": "row"}):
        with pytest.raises(RecipeError, match=r"model .*only weights and alpha can differ"):
            breadcrumbs.merge(BASE, [MODEL], overrides=[{"tensors": "head", **change}], **given)


def test_an_override_is_checked_with_what_it_overrides():
    with pytest.raises(RecipeError, match=r"beta 0.9.* is not below gamma 0.8"):
        breadcrumbs.merge(BASE, [MODEL], overrides=[{"tensors": "head", "gamma": 0.8}])
    with pytest.raises(RecipeError, match="no parameter 'gama'"):
        breadcrumbs.merge(BASE, [MODEL], overrides=[{"tensors": "head", "gama": 0.8}])


# --- models that do not fit --------------------------------------------------------------------


def test_shapes_and_kinds_that_differ():
    message = refused(
        MismatchError,
        r"model 2: tensor 'head' has shape \(4, 4\), base has \(3, 4\)",
        BASE,
        [MODEL, {**MODEL, "head": np.zeros((4, 4), np.float32)}],
    )
    assert "`exclude: head`" in message
    refused(
        MismatchError,
        "model 1: tensor 'head' holds I32, base holds F32.*Only floating-point.*exclude",
        BASE,
        [{**MODEL, "head": np.zeros((3, 4), np.int32)}],
    )
    refused(
        MismatchError,
        "tensor 'steps' holds F32, base holds I64",
        BASE,
        [{**MODEL, "steps": np.zeros(3, np.float32)}],
    )
    refused(
        MismatchError,
        "tensor 'steps' has shape",
        BASE,
        [{**MODEL, "steps": np.arange(4)}],
    )


def test_missing_tensors():
    less = {name: MODEL[name] for name in ("norm", "steps", "flag")}
    message = refused(
        MismatchError, "model 1: lacks 2 tensors of base: 'head', 'body'", BASE, [less]
    )
    assert "--missing base" in message and "exclude" in message
    made = plan(BASE, [less, MODEL], missing="base")
    assert any("model 1: counted as unchanged" in warning for warning in made.warnings)
    assert plan(BASE, [less], exclude=("head", "body"))
    found = breadcrumbs.merge(BASE, [less, MODEL], missing="base", method="average")
    expected = reference.merge(BASE, [less, MODEL], method="average") | {
        name: MODEL[name] for name in ("steps", "flag")
    }
    assert all(found[name].tobytes() == expected[name].tobytes() for name in BASE)
    # The mean of the one model that has it, not half of it.
    assert found["head"].tobytes() == MODEL["head"].tobytes()


def test_missing_integers_are_no_matter():
    assert plan(BASE, [{name: MODEL[name] for name in ("norm", "head", "body")}])


def test_extra_tensors():
    more = {**MODEL, "haed": np.zeros(2, np.float32)}
    message = refused(MismatchError, "model 1: has 1 tensor that base lacks: 'haed'", BASE, [more])
    assert "Did you mean 'head'" in message and "--extra ignore" in message
    made = plan(BASE, [more], extra="ignore")
    assert any("left out" in warning and "'haed'" in warning for warning in made.warnings)
    assert "haed" not in breadcrumbs.merge(BASE, [more], extra="ignore")


def test_long_lists_are_cut():
    many = {**MODEL, **{f"x{i}": np.zeros(1, np.float32) for i in range(20)}}
    refused(MismatchError, "has 20 tensors.*'x4' and 15 more", BASE, [many])


# --- tied weights ------------------------------------------------------------------------------

EMBED, TUNED = (RNG.standard_normal((6, 4)).astype(np.float32) for _ in range(2))


def test_a_tensor_absent_because_it_is_tied_is_taken_from_its_twin():
    base = {"embed": EMBED, "head": EMBED.copy(), "norm": np.ones(4, np.float32)}
    model = {"embed": TUNED, "norm": np.ones(4, np.float32)}
    found = breadcrumbs.merge(base, [model], method="average")
    assert found["embed"].tobytes() == found["head"].tobytes() == TUNED.tobytes()


def test_an_extra_tensor_that_is_tied_is_no_matter():
    base, model = {"embed": EMBED}, {"embed": TUNED, "head": TUNED.copy()}
    assert list(breadcrumbs.merge(base, [model], method="average")) == ["embed"]
    untied = {"embed": TUNED, "head": TUNED + 1}
    refused(MismatchError, "'head'", base, [untied])


def test_norms_and_biases_that_happen_to_be_equal_are_not_tied():
    ones, sevens = np.ones(4, np.float32), np.full(4, 7, np.float32)
    base = {"norm1": ones, "norm2": ones.copy()}
    refused(MismatchError, "lacks 1 tensor of base: 'norm2'", base, [{"norm1": sevens}])
    refused(MismatchError, "'norm2'", {"norm1": ones}, [{"norm1": sevens, "norm2": sevens.copy()}])
    biases = {"bias1": EMBED[0], "bias2": EMBED[0].copy()}
    refused(MismatchError, "lacks 1 tensor of base: 'bias2'", biases, [{"bias1": TUNED[0]}])
    zeros = np.zeros((3, 3), np.float32)
    refused(MismatchError, "'b'", {"a": zeros, "b": zeros.copy()}, [{"a": zeros + 1}])


def test_copies_that_some_model_tells_apart_are_not_taken_for_each_other():
    """Layers that were copied, as in models made deeper: one that lacks a layer lacks it."""
    layer = np.arange(16, dtype=np.float32).reshape(4, 4)
    base = {"layers.0.w": layer, "layers.1.w": layer.copy(), "x": layer + 1}
    apart = {"layers.0.w": layer + 1, "layers.1.w": layer + 2, "x": layer}
    lacks = {"layers.0.w": layer + 1, "x": layer}
    with pytest.raises(MismatchError, match=r"model 2: lacks 1 tensor of base: 'layers\.1\.w'"):
        plan(base, [apart, lacks])
    alike = apart | {"layers.1.w": layer + 1}
    made = plan(base, [alike, lacks])
    assert [t.copied for t in made.tensors] == ["", "tied copy", ""]


def test_empty_tensors_are_never_tied():
    empty = np.zeros((3, 0), np.float32)
    base = {"a": empty, "b": empty.copy(), "w": EMBED}
    made = plan(base, [{"a": empty, "w": TUNED}])
    assert {t.name: t.copied for t in made.tensors} == {"a": "marker", "b": "marker", "w": ""}
    assert not any(tensor.tied for tensor in made.tensors)


# --- only changed, same models -----------------------------------------------------------------


def test_only_changed_copies_what_no_model_changed():
    frozen = {**MODEL, "body": BASE["body"].copy()}
    made = plan(BASE, [frozen, {**frozen, "norm": BASE["norm"].copy()}], only_changed=True)
    assert {t.name for t in made.tensors if t.copied == "unchanged"} == {"body"}
    assert [t.name for t in made.merged] == ["head", "norm"]


def test_no_models_and_no_tensors():
    assert "no fine-tuned model is given" in plan(BASE, []).warnings[0]
    with pytest.raises(BreadcrumbsError, match="base: holds no tensors"):
        plan({}, [MODEL])


def test_the_base_among_the_models_and_models_given_twice(tmp_path):
    from safetensors.numpy import save_file

    paths = [tmp_path / "base.safetensors", tmp_path / "model.safetensors"]
    for path, values in zip(paths, (BASE, MODEL), strict=True):
        save_file(values, path)
    with pytest.raises(RecipeError, match=r"base.safetensors: is the base itself.*Give the base"):
        breadcrumbs.merge(paths[0], [paths[1], paths[0]])
    recipe = Recipe(str(paths[0]), (Model(str(paths[1])), Model(str(paths[1]))))
    with opening.opened(recipe) as made:
        assert any("given twice, so it counts twice" in warning for warning in made.warnings)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["breadcrumbs", "task_arithmetic"])
def test_weights_that_are_not_finite_name_their_place(method, value):
    bad = {**MODEL, "head": MODEL["head"].copy()}
    bad["head"][1, 2] = value
    with pytest.raises(MismatchError, match=rf"model 2: tensor 'head' has {value} at entry 6"):
        breadcrumbs.merge(BASE, [MODEL, bad], method=method)
    bad_base = {**BASE, "head": bad["head"]}
    with pytest.raises(MismatchError, match=rf"base: tensor 'head' has {value}.*--allow-nonfinite"):
        breadcrumbs.merge(bad_base, [MODEL], method=method)


def test_weights_that_are_not_finite_may_pass_through():
    bad, bad_base = ({**m, "head": m["head"].copy()} for m in (MODEL, BASE))
    bad["head"][1, 2], bad_base["head"][0, 0] = np.nan, np.inf
    found = breadcrumbs.merge(bad_base, [bad, MODEL], method="average", allow_nonfinite=True)
    assert found["head"][0, 0] == np.inf
    expected = reference.merge(
        BASE,
        [{**MODEL, "head": np.where(np.isfinite(bad["head"]), bad["head"], BASE["head"])}, MODEL],
        method="average",
    )
    assert found["head"].reshape(-1)[1:].tobytes() == expected["head"].reshape(-1)[1:].tobytes()


def test_a_result_that_does_not_fit_its_dtype():
    huge = {**MODEL, "head": np.full((3, 4), 60000, np.float32)}
    with pytest.raises(MismatchError, match=r"'head': the merged value .* does not fit F16.*alpha"):
        breadcrumbs.merge(BASE, [huge], method="task_arithmetic", alpha=2, dtype="float16")
