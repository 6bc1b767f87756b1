"""Methods that look at the whole model first, or at a whole tensor: TALL, EMR, TATR, PCB, TVQ."""

from __future__ import annotations

import threading
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from families import close, family, merge, saved, taus_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import breadcrumbs_mask
from references import classical, masks, spectral
from references.common import Arrays, magnitude

import breadcrumbs
from breadcrumbs.engine.passes.model import Folding
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.plan import Sizes, recipe
from breadcrumbs.plan.recipe import Model, Override, Recipe
from breadcrumbs.threads import Stopped, run_tasks

PREPARED: dict[str, dict[str, Any]] = {
    "tatr": {"quantile": 0.4, "alpha": 0.5},
    "pcb": {},
    "emr": {"task": 2},
    "consensus": {"on": "ties", "alpha": 0.5},
    "tall_mask": {"on": "ties", "task": 3},
}
prepared = pytest.mark.parametrize("method", PREPARED)


def same(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].tobytes() == values.tobytes(), name


@prepared
@pytest.mark.parametrize("kind", ["usual", "ties"])
def test_more_passes_find_the_same(method, kind):
    base, *models = family(1, "float32", 3, kind)
    given = dict(method=method, **PREPARED[method])
    expected = breadcrumbs.merge(base, models, **given)
    for few in (0, 1, 20):
        sizes = Sizes(chunk=16, arena=16 * 16, few=few)
        same(merge(base, models, sizes=sizes, threads=3, **given), expected)


def masked(base: Arrays, models: list[Arrays]) -> list[Arrays]:
    """Return models of the Breadcrumbs masks of task vectors."""
    result = []
    for model in models:
        changed = dict(model)
        for name in set(base) - {"steps"}:
            sizes = magnitude(base[name], model[name]).reshape(-1).tolist()
            mask = np.reshape(breadcrumbs_mask(sizes, beta=0.3, gamma=0.8), base[name].shape)
            changed[name] = np.where(mask, model[name], base[name])
        result.append(changed)
    return result


@pytest.mark.parametrize("aggregate", ["tatr", "pcb", "consensus"])
@pytest.mark.parametrize("unit", [None, "row", "model"])
def test_what_is_looked_at_is_what_the_transform_leaves(aggregate, unit):
    base, *models = family(2, "float32", 3)
    given = {"on": "ties"} if aggregate == "consensus" else {}
    given |= {"beta": 0.3, "gamma": 0.8, "alpha": 0.5} | ({"granularity": unit} if unit else {})
    given |= {"method": f"breadcrumbs+{aggregate}", "dtype": "float64"}
    found = breadcrumbs.merge(base, models, **given)
    if unit is None:
        reference = {"tatr": spectral.tatr, "pcb": spectral.pcb, "consensus": masks.consensus}
        settings = {"on": "ties"} if aggregate == "consensus" else {}
        settings["alpha"] = 0.5
        close(found, reference[aggregate](base, masked(base, models), **settings), 1e-12)
    sizes = Sizes(chunk=8, arena=8 * 16)
    same(merge(base, models, sizes=sizes, threads=2, **given), found)


@pytest.mark.parametrize("transform, settings", [("tvq", {"bits": 3}), ("rtvq", {})])
@pytest.mark.parametrize("aggregate", ["tsv_m", "elect", "mean", "tatr", "model_stock"])
def test_quantised_task_vectors_go_with_every_aggregate(transform, settings, aggregate):
    base, *models = family(3, "float64", 3)
    models = [*models[:2], {name: v for name, v in models[2].items() if name != "b"}]
    more: dict[str, Any] = {"missing": "base"} | ({"alpha": 0.5} if aggregate == "tatr" else {})
    found = breadcrumbs.merge(base, models, method=f"{transform}+{aggregate}", **settings, **more)
    zeros = {name: np.zeros_like(values) for name, values in base.items()}  # to lose no digit
    quantised: list[Arrays] = [dict(zeros) for _ in models]
    for name in set(base) - {"steps"}:
        taus = taus_of(base[name], [m.get(name, base[name]) for m in models])
        if transform == "rtvq":
            taus = spectral.rtvq(taus)
        else:
            taus = [spectral.tvq(tau, bits=3) for tau in taus]
        for model, tau in zip(quantised, taus, strict=True):
            model[name] = np.asarray(tau)
    if aggregate == "mean" and transform == "tvq":
        del quantised[2]["b"]  # the mean is of the models that have the tensor
    step = breadcrumbs.merge(zeros, quantised, method=f"none+{aggregate}", **more)
    close(found, {name: base[name] + values for name, values in step.items()}, 1e-12)


@prepared
def test_what_is_excluded_does_not_count(method):
    base, *models = family(4, "bfloat16", 3)
    merge = partial(breadcrumbs.merge, method=method, **PREPARED[method])
    found = merge(base, models, exclude=["b", "blocks.3.*"])
    left = [
        {name: values for name, values in arrays.items() if name not in ("b", "blocks.3.w")}
        for arrays in (base, *models)
    ]
    expected = merge(left[0], left[1:])
    same({name: found[name] for name in expected}, expected)
    assert found["b"].tobytes() == base["b"].tobytes()


@pytest.mark.parametrize("method", [*PREPARED, "rtvq", "lines"])
def test_a_model_of_weight_0_is_absent(method):
    base, *models = family(5, "float32", 4)
    given = dict(PREPARED.get(method, {}), method=method)
    names = ["absent", "first", "second", "third"]
    if "task" in given:
        given["task"] = names[given["task"]]
    for scales in ([0.1, 0.2, 0.5, 0.4],) if method in ("consensus", "tall_mask") else (None,):
        more = [{"scale": mine} if mine else {} for mine in (scales, scales and scales[1:])]
        found = breadcrumbs.merge(
            base, models, weights=[0, 1, 1, 1], names=names, **given, **more[0]
        )
        same(found, breadcrumbs.merge(base, models[1:], names=names[1:], **given, **more[1]))


@prepared
def test_no_model_that_counts_gives_the_base(method):
    base, *models = family(6, "float32", 3)
    if "task" in PREPARED[method]:
        with pytest.raises(RecipeError, match="has weight 0, so it takes no part"):
            breadcrumbs.merge(base, models, weights=[0, 0, 0], method=method, **PREPARED[method])
        return
    same(breadcrumbs.merge(base, models, weights=[0, 0, 0], method=method), base)


@pytest.mark.parametrize("method", [*PREPARED, "tvq", "rtvq"])
def test_what_is_not_finite_counts_as_unchanged(method):
    base, *models = family(7, "float32", 3)
    whole = dict(models[1], b=models[1]["b"].copy())
    models[1]["b"] = models[1]["b"].copy()
    models[1]["b"][2, 3], whole["b"][2, 3] = np.nan, base["b"][2, 3]
    given = dict(PREPARED.get(method, {}), method=method)
    found = breadcrumbs.merge(base, models, allow_nonfinite=True, **given)
    same(found, breadcrumbs.merge(base, [models[0], whole, models[2]], **given))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_magnitudes_rank_as_those_of_ties_do(dtype):
    # Rounded to float32 all are equal, and the last entries stay; in float64 the first are larger.
    base = {"w": np.linspace(0.1, 0.9, 20).astype(dtype)}
    models = [{"w": np.full(20, 1e8 * sign, dtype)} for sign in (1, 3)]
    found = breadcrumbs.merge(
        base, models, method="consensus", on="ties", k=0, alpha=1, dtype="float64"
    )
    close(found, masks.consensus(base, models, on="ties", k=0, alpha=1), 1e-15)
    moved = np.flatnonzero(found["w"] != base["w"]).tolist()
    assert moved == ([16, 17, 18, 19] if dtype == "float32" else [0, 1, 2, 3])
    trimmed = breadcrumbs.merge(base, models, method="ties", merge="sum", alpha=1, dtype="float64")
    same(found, trimmed)


def test_conflict_does_not_depend_on_who_has_which_magnitude():
    rows = np.array(list(permutations([0.1, 0.2, 0.3, 0.7]))).T
    base = {"w": np.zeros(24)}
    models = [{"w": row.copy()} for row in rows]
    for quantile, number in ((0.25, 6), (0.5, 12), (0.75, 18)):
        found = breadcrumbs.merge(base, models, method="tatr", quantile=quantile)["w"]
        assert np.flatnonzero(found).tolist() == list(range(number))


# --- what methods come to at the ends of their parameters ---------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "method, given, other, alpha",
    [
        ("tatr", {"quantile": 1, "alpha": 0.5}, "task_arithmetic", 0.5),
        ("consensus", {"k": 0, "alpha": 0.5}, "task_arithmetic", 0.5),
        ("lines", {"beta": 0, "alpha": 0.5}, "task_arithmetic", 0.5),
        ("lines", {"beta": 0}, "task_arithmetic", 1 / 3),
        ("consensus", {"k": 0, "on": "ties", "alpha": 0.5}, "ties", 0.5),
        ("emr", {}, "none+elect", 1),
    ],
)
def test_a_method_comes_to_another(method, given, other, alpha, dtype):
    if method == "emr":
        dtype = "float32"  # of bfloat16 some sums are 0, which emr takes for negative
    base, *models = family(15, dtype, 3)
    more = {"ties": {"merge": "sum"}, "none+elect": {"merge": "max"}}.get(other, {})
    found = breadcrumbs.merge(base, models, method=method, **given)
    same(found, breadcrumbs.merge(base, models, method=other, alpha=alpha, **more))


@pytest.mark.parametrize("method", ["tall_mask", "emr"])
def test_one_model_is_rebuilt_whole(method):
    base, model = family(16, "bfloat16", 1)
    same(breadcrumbs.merge(base, [model], method=method, task=1), dict(base, **model))


def test_a_rescaler_gives_a_task_vector_its_length_back():
    base, *models = family(17, "float64", 4)
    for task, model in enumerate(models):
        found = breadcrumbs.merge(base, models, method="emr", task=task + 1)
        lengths = [
            sum(np.abs(mine[name] - base[name]).sum() for name in set(base) - {"steps"})
            for mine in (found, model)
        ]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_a_few_bits_hold_a_task_vector_to_a_step(values, bits):
    base, model = {"w": np.zeros(len(values))}, {"w": np.array(values)}
    found = breadcrumbs.merge(base, [model], method="tvq", bits=bits, alpha=1)["w"]
    step = (max(values) - min(values)) / (2**bits - 1)
    assert len(set(found.tolist())) <= 2**bits
    assert np.abs(found - values).max() <= step * (1 + 1e-9)


# --- files -------------------------------------------------------------------------------------


@prepared
def test_an_interrupted_merge_goes_on_to_the_same_bits(method, tmp_path):
    paths = saved(tmp_path, family(8, "float32", 3))
    models = tuple(Model(path) for path in paths[1:])
    made = Recipe(paths[0], models, method, parameters=PREPARED[method])
    calls = iter(range(4))

    def stop(nbytes: int) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    def merge(name: str, **options: Any) -> Any:
        with opening.opened(made) as plan:
            return merging_files.to_files(plan, tmp_path / name, threads=1, **options)

    whole = merge("whole.safetensors")
    with pytest.raises(KeyboardInterrupt):
        merge("out.safetensors", progress=stop)
    resumed = merge("out.safetensors", resume=True)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("out", "whole")]
    assert files[0] == files[1]
    assert resumed.shares == whole.shares


@pytest.mark.parametrize("method", ["pcb", "tatr"])
def test_an_interrupt_does_not_wait_for_what_looks_at_the_model(method, monkeypatch):
    base, *models = family(8, "float32", 3)
    looked = []
    before = Folding.scan

    def scan(folding: Any, item: int) -> Any:
        looked.append(item)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return before(folding, item)

    monkeypatch.setattr(Folding, "scan", scan)
    with pytest.raises(KeyboardInterrupt):
        breadcrumbs.merge(base, models, method=method, threads=1)
    assert len(looked) == 3


def test_an_error_asks_all_to_stop():
    stop, begun = threading.Event(), threading.Event()

    def fails() -> list:
        begun.wait(10)
        raise KeyError("first")

    def waits() -> list:
        begun.set()
        assert stop.wait(10)
        raise Stopped

    with pytest.raises(KeyError, match="first"):
        run_tasks([fails, waits], 2, stop)


@pytest.mark.parametrize("on", ["sum", "ties"])
@pytest.mark.parametrize("kind", ["usual", "ties"])
def test_the_report_of_consensus_tells_what_tasks_use(on, kind, tmp_path):
    base, *models = family(9, "float32", 3, kind)
    paths = saved(tmp_path, [base, *models])
    given = dict(method="consensus", on=on, scale=[0.2, 0.4, 0.5])
    report = breadcrumbs.merge(paths[0], paths[1:], output=tmp_path / "out", **given)
    expected = masks.consensus_statistics(base, models, scale=[0.2, 0.4, 0.5], on=on)
    assert report.shares == pytest.approx(expected, abs=1e-15)
    assert 0 < report.shares["selfish"] < 1
    assert f"{report.shares['selfish']:.2%} are selfish" in (tmp_path / "out/README.md").read_text()
    text = (tmp_path / "out/breadcrumbs.yaml").read_text()
    assert "scale:\n  - 0.2\n  - 0.4\n  - 0.5\n" in text
    loaded = recipe.load(tmp_path / "out/breadcrumbs.yaml")
    again = recipe.to_yaml(loaded, complete=True)  # whose paths are those of the machine
    assert again.partition("method:")[2].partition("made_by:")[0] in text


def test_nothing_changed_has_shares_of_0(tmp_path):
    base, *_ = family(9, "float32", 0)
    paths = saved(tmp_path, [base, base])
    report = breadcrumbs.merge(
        paths[0], paths[1:], method="consensus", alpha=0, output=tmp_path / "out.safetensors"
    )
    assert report.shares == {"catastrophic": 0, "selfish": 0}


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, given, message",
    [
        ("tall_mask", {}, r"tall_mask: task: is not given\. Give one of dogs, cats, model 3, or"),
        ("tall_mask", {"task": "dog"}, r"task: there is no model 'dog'.*mean 'dogs'"),
        ("tall_mask", {"task": 4}, r"no model '4'\. Give one of .*, or a number from 1 to 3"),
        ("tall_mask", {"task": 0}, r"no model '0'"),
        ("emr", {"task": True}, r"emr: task: True is not possible\. Give a model's name"),
        ("consensus", {"scale": [0.2, 0.4]}, r"consensus: scale: 2 values are given for 3 models"),
        ("consensus", {"scale": "0.2,0.4,2"}, r"scale: '0.2,0.4,2' is not possible\. Give 0 to 1"),
        ("consensus", {"on": "tie"}, r"on: 'tie' is not possible\. Give sum, ties"),
        ("tvq", {"bits": 0}, r"bits: 0 is not possible\. Give a whole number from 1 to 16"),
        ("tvq", {"bits": 17}, r"bits: 17 is not possible"),
        ("lines", {"pattern": r"block\d"}, r"pattern: .* Give a regular expression with one group"),
        ("lines", {"pattern": "("}, r"pattern: '\(' is not possible"),
        ("lines", {"pattern": r"b\.(\d+)"}, r"lines: pattern: 'b\\\.\(\\d\+\)' finds no layer in"),
        ("lines", {"pattern": r"blocks.(0)"}, r"finds layer 0 alone, so there is no depth"),
        ("pcb", {"overrides": [{"tensors": "b", "edge": 0}]}, r"so only alpha can differ"),
    ],
)
def test_what_cannot_be_is_refused(method, given, message):
    base, *models = family(10, "float32", 3)
    with pytest.raises(RecipeError, match=message):
        breadcrumbs.merge(base, models, names=["dogs", "cats", ""], method=method, **given)


@pytest.mark.parametrize("task", ["cats", 2, "2"])
def test_a_task_is_a_name_or_a_number(task):
    base, *models = family(10, "float32", 3)
    merge = partial(breadcrumbs.merge, base, models, method="emr", names=["dogs", "cats", "3"])
    same(merge(task=task), merge(task="cats"))
    same(merge(task=3), breadcrumbs.merge(base, models, method="emr", task=3))


def test_alpha_may_differ_between_tensors():
    base, *models = family(11, "float32", 3)
    override = {"tensors": "b", "alpha": 0}
    found = breadcrumbs.merge(base, models, method="pcb", overrides=[override])
    expected = breadcrumbs.merge(base, models, method="pcb")
    same(found, expected | {"b": base["b"]})


# --- depth -------------------------------------------------------------------------------------


def test_layers_are_found_in_usual_names():
    names = {
        "model.layers.0.self_attn.q_proj.weight": 0,
        "model.layers.3.mlp.experts.7.weight": 3,
        "encoder.block.2.layer.1.DenseReluDense.wi.weight": 2,
        "visual.transformer.resblocks.4.mlp.c_fc.bias": 4,
        "h.1.attn.bias": 1,
        "lm_head.weight": 0,
        "conv1.weight": 0,
    }
    base = {name: np.zeros(2, np.float32) for name in names}
    models = [{name: np.ones(2, np.float32) for name in names}] * 4
    found = breadcrumbs.merge(base, models, method="lines", beta=0.5)
    for name, layer in names.items():  # a sum of 4, each of weight 1/4 in the first layer
        assert found[name].tolist() == [np.float32(4 * (0.25 + 0.5 * layer / 4))] * 2, name


def test_a_plan_says_which_layers_it_found(tmp_path):
    paths = saved(tmp_path, family(12, "float32", 1))
    with opening.opened(Recipe(paths[0], (Model(paths[1]),), "lines")) as plan:
        (warning,) = plan.warnings
    assert "found 11 layers in 3 tensors; alpha alone scales" in warning


def test_layers_count_whatever_is_excluded():
    base, *models = family(13, "float32", 2)
    given = dict(method="lines", beta=1.5)
    found = breadcrumbs.merge(base, models, exclude=["blocks.10.*"], **given)
    expected = breadcrumbs.merge(base, models, **given)
    same(found, expected | {"blocks.10.w": base["blocks.10.w"]})


def test_an_override_scales_a_layer_of_its_own():
    base, *models = family(14, "float32", 2)
    over = Override("blocks.3.*", {"alpha": 2, "beta": 0})
    found = breadcrumbs.merge(
        base, models, method="lines", overrides=[{"tensors": over.tensors, **over.parameters}]
    )
    taus = taus_of(base["blocks.3.w"], [m["blocks.3.w"] for m in models])
    expected = classical.linear_sum(base["blocks.3.w"], taus, alpha=2)
    np.testing.assert_allclose(found["blocks.3.w"], expected, rtol=1e-6)
