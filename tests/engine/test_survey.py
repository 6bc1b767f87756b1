"""Units larger than a chunk: what chunks, samples and brackets are like changes no bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import reference
from families import merge
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import DTYPES

import breadcrumbs
from breadcrumbs.engine import runner
from breadcrumbs.engine.passes import ranks, tally
from breadcrumbs.merging import opening
from breadcrumbs.merging.arrays import ArraySink
from breadcrumbs.plan import USUAL, Sizes
from breadcrumbs.plan.recipe import Model, Recipe

#: Chunks are small, and all keys find room.
SMALL = Sizes(chunk=64, arena=4096, run=16, room=1.0)


@pytest.fixture(autouse=True)
def seen(monkeypatch):
    """Count the surveys, passes and histograms that small chunks lead to."""
    counter: Counter[str] = Counter()
    for kind, name in (
        (ranks.Unit, "__init__"),
        (ranks.Unit, "sampled"),
        (ranks.Search, "next"),
        (ranks.Counting, "__init__"),
        (ranks.Narrowing, "__init__"),
        (ranks.Bisecting, "__init__"),
    ):
        called = name if name != "__init__" else kind.__name__
        monkeypatch.setattr(kind, name, counting(kind, name, called, counter))
    return counter


def counting(kind: type, name: str, called: str, counter: Counter[str]):
    before = getattr(kind, name)

    def counted(self, *given):
        counter[called] += 1
        return before(self, *given)

    return counted


def family(kind: str, seed: int, models: int, dtype="float32", shapes=None):
    """Return (base, models); the tensors lie in an order that is not that of their names."""
    rng = np.random.default_rng(seed)
    shapes = shapes or {"z": (330,), "b": (3, 80), "m": (3,), "s": (), "e": (0, 4), "a": (2, 150)}
    to = DTYPES[dtype]

    def entries(shape):
        if kind == "ties":
            return rng.integers(-2, 3, shape) / 2
        if kind == "constant":
            return np.full(shape, 0.5)
        if kind == "rising":  # what a sample of runs takes for far more even than it is
            return np.arange(int(np.prod(shape)), dtype=float).reshape(shape)
        return rng.standard_normal(shape)

    base = {name: np.asarray(rng.integers(-3, 4, s) / 4).astype(to) for name, s in shapes.items()}
    return base, [
        {
            name: np.asarray(base[name].astype(np.float64) + entries(shape)).astype(to)
            for name, shape in shapes.items()
        }
        for _ in range(models)
    ]


def run(base, models, threads=1, kernel="numpy", sizes=SMALL, **arguments: Any):
    """Return (merged arrays, entries kept of each tensor by each model)."""
    arguments.setdefault("alpha", 1.0)
    method, weights = arguments.pop("method"), arguments.pop("weights", [1.0] * len(models))
    paths = tuple(Model(f"model {i + 1}", weights[i]) for i in range(len(models)))
    recipe = Recipe("base", paths, method, arguments)
    with opening.opened(recipe, [base, *models], sizes) as plan:
        sink = ArraySink(plan)
        reports = runner.write(plan, sink, threads=threads, kernel=kernel)
    return sink.arrays, {
        tensor.name: report.kept for tensor, report in zip(plan.tensors, reports, strict=True)
    }


def expected(base, models, **arguments: Any):
    weights = arguments.pop("weights", None)
    names = [f"model {i + 1}" for i in range(len(models))]
    parameters = {key: value for key, value in arguments.items() if key not in ("method", "alpha")}
    masks = reference.kept(base, models, list(base), arguments["method"], names, 0, parameters)
    kept = {name: [sum(mask[name]) for mask in masks] for name in base}
    return reference.merge(base, models, weights=weights, masks=masks, **arguments), kept


def assert_as_expected(found, right):
    arrays, kept = found
    assert kept == right[1]
    assert_same(arrays, right[0])


def assert_same(arrays, others):
    assert list(arrays) == list(others)
    for name, values in arrays.items():
        assert values.dtype == others[name].dtype and values.shape == others[name].shape
        assert values.tobytes() == others[name].tobytes(), name


CASES: list[dict[str, Any]] = [
    dict(method="breadcrumbs", beta=0.4, gamma=0.9),
    dict(method="breadcrumbs", beta=0.85, gamma=0.993, granularity="model"),
    dict(method="breadcrumbs", beta=0.7, gamma=0.95, variant="authors"),
    dict(method="bottom_masking", density=0.2, granularity="model"),
    dict(method="top_masking", outliers=0.05, granularity="row", alpha=1.0),
    dict(method="top_masking", outliers=0.004, granularity="model", alpha=1.0),
]
cases = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case['method']}-{case.get('granularity', 'own')}"
)


@cases
@pytest.mark.parametrize("kind", ["usual", "ties", "constant", "rising"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_chunked_units_are_merged_as_the_reference_does(case, kind, dtype, seen):
    base, models = family(kind, 1, 2, dtype)
    right = expected(base, models, **case)
    assert_as_expected(run(base, models, **case), right)
    assert seen["Unit"] and seen["Counting"] >= seen["sampled"] >= seen["Unit"]
    if dtype != "float64":
        assert_as_expected(run(base, models, threads=3, kernel="native", **case), right)


@cases
def test_chunked_is_whole(case, seen):
    base, models = family("ties", 2, 3, "bfloat16")
    chunked = run(base, models, **case)
    surveys = seen["Unit"]
    whole = run(base, models, sizes=USUAL, **case)
    more = case.get("granularity") == "model"  # which is always looked at first
    assert surveys and seen["Unit"] == surveys + more
    assert_same(chunked[0], whole[0])
    assert chunked[1] == whole[1]


@given(
    st.sampled_from(["usual", "ties", "constant"]),
    st.integers(1, 400),
    st.sampled_from([7, 16, 64, 100]),
    st.integers(1, 4),
    st.tuples(st.integers(0, 99), st.integers(50, 100)).filter(lambda it: it[0] < it[1]),
    st.sampled_from(["tensor", "row", "model"]),
    st.integers(0, 99),
)
@settings(max_examples=50)
def test_any_size_of_chunk_keeps_the_same(kind, n, chunk, step, quantiles, unit, seed):
    base, models = family(kind, seed, 2, shapes={"b": (n,), "a": (2, n // 2), "c": (5, 3)})
    case: dict[str, Any] = dict(beta=quantiles[0] / 100, gamma=quantiles[1] / 100, granularity=unit)
    sizes = replace(SMALL, chunk=chunk, arena=chunk * step * 16)
    found = run(base, models, method="breadcrumbs", sizes=sizes, **case)
    assert_as_expected(found, expected(base, models, method="breadcrumbs", **case))


@cases
def test_many_models_take_several_passes(case, seen):
    base, models = family("usual", 3, 11, "bfloat16", {"w": (2, 150), "a": (130,)})
    right = expected(base, models, **case)
    assert_as_expected(run(base, models, **case), right)
    starts = seen["Unit"]
    waves = -(-11 // SMALL.group)
    assert seen["next"] == (waves + 1) * starts  # the waves, and then the rest
    one = replace(SMALL, wave=1)
    for threads, kernel in ((1, "numpy"), (3, "native")):
        before = seen["next"]
        assert_as_expected(run(base, models, threads, kernel, one, **case), right)
        assert seen["next"] - before == 12 * starts  # one model a wave
    assert_as_expected(run(base, models, sizes=replace(SMALL, wave=500), **case), right)


def test_a_pass_takes_as_many_models_as_there_is_room_for():
    sample = np.repeat(np.arange(100, dtype=np.uint32), 8).reshape(4, 200)
    two = np.array([10, 19, 50, 89], np.uint32)
    assert tally.inside(sample, two, 1000) == (500, 500)
    assert tally.inside(sample, np.array([7, 7, *tally.NOTHING], np.uint32), 1000) == (0, 10)
    full = USUAL.wave / 4
    assert tally.wave([0, 0, 0, 0, 0], USUAL) == SMALL.group
    assert tally.wave([full / 2, full / 2, 1], USUAL) == 2
    assert tally.wave([2 * full, 0], USUAL) == 1


def held(monkeypatch, budget: int) -> list[int]:
    """Return the list of how many keys each tally has collected."""
    sizes: list[int] = []
    take = tally.Tally.take

    def taken(self, *given):
        take(self, *given)
        assert self.inside.size * self.inside.itemsize <= budget
        sizes.append(self.used)

    monkeypatch.setattr(tally.Tally, "take", taken)
    return sizes


@cases
@pytest.mark.parametrize("kind", ["usual", "ties", "constant", "rising"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_brackets_that_hold_too_much_are_narrowed_first(case, kind, dtype, monkeypatch, seen):
    base, models = family(kind, 15, 5, dtype)
    right = expected(base, models, **case)
    little = replace(SMALL, budget=128, bins=4)
    sizes = held(monkeypatch, 128)
    for threads, kernel in ((1, "numpy"), (3, "native")):
        assert_as_expected(run(base, models, threads, kernel, little, **case), right)
    assert seen["Narrowing"] or kind in ("ties", "constant") or case["method"] == "top_masking"
    assert max(sizes) <= 128 // 4


@cases
@pytest.mark.parametrize("wrong", ["below", "above", "swapped", "all"])
def test_wrong_brackets_are_widened_and_narrowed_to_the_same_bits(case, wrong, monkeypatch, seen):
    base, models = family("usual", 16, 2)
    right = expected(base, models, **case)
    monkeypatch.setattr(tally, "bracket", lambda *given: np.array(WRONG[wrong], np.uint32))
    monkeypatch.setattr(tally, "inside", lambda *given: (1e9, 1e9))
    little = replace(SMALL, budget=256, bins=8)
    assert_as_expected(run(base, models, sizes=little, **case), right)
    assert seen["Narrowing"] and not seen["Bisecting"]


def test_magnitudes_that_nearly_all_tie_are_counted_and_not_collected(monkeypatch, seen):
    base, models = family("constant", 17, 2)
    rng = np.random.default_rng(0)
    for model in models:  # some entries differ, so a bracket has two ends, and one key most of it
        for name in ("z", "a"):
            odd = rng.random(model[name].shape) < 0.2
            model[name][odd] += rng.standard_normal(int(odd.sum())).astype(np.float32) / 50
    case: dict[str, Any] = dict(
        method="breadcrumbs", beta=0.4, gamma=0.9, granularity="model", alpha=1.0
    )
    right = expected(base, models, **case)
    monkeypatch.setattr(tally, "bracket", lambda *given: np.array(WRONG["all"], np.uint32))
    sizes = held(monkeypatch, 512)
    assert_as_expected(run(base, models, sizes=replace(SMALL, budget=512), **case), right)
    assert seen["Narrowing"] and not seen["Bisecting"] and max(sizes) <= 128


def test_a_histogram_narrows_to_the_bin_of_a_rank():
    keys = np.array([1, 5, 5, 9, 100, 2**31 - 8, 77], np.uint32)
    wide = tally.Histogram.empty(5, 100, USUAL.bins)
    assert wide.count(keys)[0] == 1
    wide.below, counts = wide.count(keys)
    wide.counts += counts
    assert wide.counts.sum() == 5
    assert wide.narrowed(2, 7, 4) == wide.narrowed(3, 7, 4) == (5, 5, 2)
    assert wide.narrowed(1, 7, 4) == (0, 4, 1)
    assert wide.narrowed(7, 7, 4) == (101, tally.largest(4), 1)
    rough = tally.Histogram(0, 127, 5, np.array([4, 0, 1, 1]))
    assert rough.narrowed(5, 7, 4) == (64, 95, 1) and rough.narrowed(6, 7, 4) == (96, 127, 1)
    assert len(tally.Histogram.empty(0, 2**31 - 1, 16).counts) <= 2 * 16


WRONG = {
    "below": (0, 1, 0, 1),
    "above": (0x7F7FFFF0, 0x7F7FFFFF, 0x7F7FFFF0, 0x7F7FFFFF),
    "zero": (0, 0, 0, 0),
    "swapped": (0x3F800001, 0x3F900000, 0x3D000000, 0x3D100000),
    "all": (0, 0x7F7FFFFF, 0, 0x7F7FFFFF),
    "one key": (0x3F000000, 0x3F000000, 0x3F800000, 0x3F800000),
}


@cases
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["usual", "ties"])
def test_wrong_brackets_change_no_bit(case, wrong, kind, monkeypatch, seen):
    base, models = family(kind, 4, 2)
    right = expected(base, models, **case)
    monkeypatch.setattr(tally, "bracket", lambda *given: np.array(WRONG[wrong], np.uint32))
    assert_as_expected(run(base, models, **case), right)
    if wrong in ("below", "above", "zero"):
        assert seen["Bisecting"]
    histograms = seen["Bisecting"]
    assert_as_expected(run(base, models, threads=2, kernel="native", **case), right)
    assert seen["Bisecting"] == 2 * histograms


@cases
def test_wrong_brackets_of_float64_keys_change_no_bit(case, monkeypatch, seen):
    base, models = family("usual", 5, 2, "float64")
    right = expected(base, models, **case)
    monkeypatch.setattr(tally, "bracket", lambda *given: np.array([1, 2, 1, 2], np.uint64))
    assert_as_expected(run(base, models, **case), right)
    assert seen["Bisecting"]


@cases
@pytest.mark.parametrize("room", [0.0, 0.01])
def test_too_little_room_changes_no_bit(case, room, seen):
    base, models = family("usual", 6, 3)
    right = expected(base, models, **case)
    little = replace(SMALL, room=room, spare=0)
    for threads, kernel in ((1, "numpy"), (2, "native")):
        assert_as_expected(run(base, models, threads, kernel, little, **case), right)
    assert seen["Bisecting"] or room


@pytest.mark.parametrize("bracket", ["right", "below", "all"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@cases
def test_units_are_surveyed_in_files_to_the_same_bits(
    case, dtype, bracket, monkeypatch, tmp_path, seen
):
    from safetensors.numpy import save_file

    base, models = family("ties", 12, 2, dtype)
    right = expected(base, models, **case)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path, arrays in zip(paths, (base, *models), strict=True):
        save_file(arrays, path)
    if bracket != "right":
        monkeypatch.setattr(tally, "bracket", lambda *given: np.array(WRONG[bracket], np.uint32))
    for kernel, threads in (("numpy", 1), ("native", 1), ("native", 3)):
        arrays, kept = run(paths[0], paths[1:], kernel=kernel, threads=threads, **case)
        assert kept == {name: right[1][name] for name in kept} and len(kept) == len(base)
        assert_same(arrays, {name: right[0][name] for name in arrays})
    assert seen["Unit"] and bool(seen["Bisecting"]) == (bracket == "below")


@pytest.mark.parametrize("kind", ["usual", "rising"])
@pytest.mark.parametrize("room", [0.1, 0.3, 0.6])
def test_segments_without_room_beside_some_with_room(kind, room, monkeypatch, seen):
    # The last segment of each unit is short, so its keys find room where the others' do not.
    base, models = family(kind, 13, 2, shapes={"a": (330,), "b": (2, 290), "c": (520,)})
    little = replace(SMALL, room=room)
    monkeypatch.setattr(tally, "bracket", lambda *given: np.array(WRONG["all"], np.uint32))
    for unit in ("tensor", "row", "model"):
        case: dict[str, Any] = dict(
            method="bottom_masking", density=0.99, granularity=unit, alpha=1.0
        )
        found = run(base, models, sizes=little, **case)
        assert_as_expected(found, expected(base, models, **case))
    assert seen["Bisecting"]


def test_one_model_may_miss_where_another_does_not(monkeypatch, seen):
    base, models = family("usual", 7, 3)
    case: dict[str, Any] = dict(
        method="breadcrumbs", beta=0.4, gamma=0.9, granularity="model", alpha=1
    )
    real = tally.bracket
    calls = []

    def sometimes(sample, *given):
        calls.append(len(calls))
        wrong = np.array(WRONG["above"], np.uint32)
        return wrong if len(calls) % 3 == 2 or len(calls) > 3 else real(sample, *given)

    monkeypatch.setattr(tally, "bracket", sometimes)
    assert_as_expected(run(base, models, **case), expected(base, models, **case))
    assert seen["Bisecting"] == 1


@pytest.mark.parametrize("unit", ["tensor", "row", "model"])
@pytest.mark.parametrize("weights", [[1.0, 0.0, 1.0], [0.3, 2.0, -1.0], [0.0, 0.0, 0.0]])
def test_weights_are_honoured_in_chunks(unit, weights):
    base, models = family("ties", 8, 3)
    case: dict[str, Any] = dict(
        method="breadcrumbs", beta=0.4, gamma=0.9, granularity=unit, weights=weights
    )
    arrays, kept = run(base, models, **case)
    right, counts = expected(base, models, **case)
    assert_same(arrays, right)
    for name, numbers in counts.items():
        assert kept[name] == [k if w else 0 for k, w in zip(numbers, weights, strict=True)]


def test_models_that_lack_tensors_are_ranked_as_unchanged():
    base, models = family("usual", 9, 2)
    del models[0]["z"], models[1]["b"]
    case: dict[str, Any] = dict(
        method="breadcrumbs", beta=0.4, gamma=0.9, granularity="model", alpha=1
    )
    found = merge(base, models, sizes=SMALL, missing="base", **case)
    assert_same(found, reference.merge(base, models, **case))


def test_only_changed_tensors_are_ranked():
    base, models = family("usual", 10, 2)
    for model in models:
        model["z"] = base["z"].copy()
    case: dict[str, Any] = dict(
        method="breadcrumbs", beta=0.4, gamma=0.9, granularity="model", alpha=1
    )
    found = merge(base, models, sizes=SMALL, only_changed=True, **case)
    assert_same(found, reference.merge(base, models, copied=["z"], **case))
    everything = merge(base, models, sizes=SMALL, **case)
    assert everything["a"].tobytes() != found["a"].tobytes()


def test_a_weight_that_is_not_finite_is_found_in_any_chunk():
    base, models = family("usual", 11, 2)
    models[1]["b"][2, 7] = np.nan
    with pytest.raises(breadcrumbs.errors.MismatchError) as caught:
        merge(base, models, sizes=SMALL, beta=0.4, gamma=0.9, granularity="model")
    assert "model 2" in str(caught.value) and f"'b' has nan at entry {2 * 80 + 7}" in str(
        caught.value
    )
    allowed: dict[str, Any] = dict(beta=0.4, gamma=0.9, granularity="model", alpha=1)
    found = merge(base, models, sizes=SMALL, allow_nonfinite=True, **allowed)
    models[1]["b"][2, 7] = base["b"][2, 7]
    assert_same(found, reference.merge(base, models, method="breadcrumbs", **allowed))


def test_a_tensor_that_was_left_as_it_was_takes_no_histogram(seen):
    base, models = family("usual", 11, 3, shapes={"a": (20, 600), "b": (20, 600)})
    models = [{**model, "b": base["b"]} for model in models]
    little = replace(SMALL, room=0.06, spare=0)
    found, kept = run(base, models, sizes=little, method="breadcrumbs", beta=0.9, gamma=0.99)
    assert found["b"].tobytes() == base["b"].tobytes() and kept["b"] == [1080] * 3
    assert seen["sampled"] and not seen["Bisecting"]
