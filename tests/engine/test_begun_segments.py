"""Segments that the pass merges which finds their ranks: read once, and the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import assert_same, merge, saved
from reference import DTYPES

from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.passes import ranks, tally
from breadcrumbs.engine.routes import sums
from breadcrumbs.plan import Sizes, lengths

#: Chunks so small that each tensor is surveyed, in several segments.
SMALL = Sizes(chunk=512, arena=1 << 14, run=64)
TWICE = replace(SMALL, begun=0)
METHODS: dict[str, dict[str, Any]] = {
    "breadcrumbs": dict(beta=0.85, gamma=0.99, alpha=0.7),
    "magnitude": dict(density=0.1, alpha=1.0),
    "top_masking": dict(outliers=0.02, alpha=-0.5),
    "bottom_masking": dict(density=0.3, alpha=1.0),
}


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the segments that are ended, those that are not taken, and passes that begin any."""
    counter: Counter[str] = Counter()
    before, made = sums.begun, ranks.Beginning.__init__

    def counted(terms: Any, segment: Any) -> Any:
        held = (segment.index, segment.start) in terms.context.facts.begun
        found = before(terms, segment)
        counter["ended"] += found is not None
        counter["refused"] += held and found is None
        return found

    def beginning(self: Any, *given: Any) -> None:
        counter["passes"] += 1
        made(self, *given)

    holds = Context.hold

    def hold(self: Any, size: int) -> bool:
        held = holds(self, size)
        counter["bytes"] += size if held else 0
        return held

    monkeypatch.setattr(Context, "hold", hold)
    monkeypatch.setattr(sums, "begun", counted)
    monkeypatch.setattr(ranks.Beginning, "__init__", beginning)
    return counter


def family(models: int, dtype: str = "float32", seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    shapes = {"w": (60, 150), "v": (7001,), "small": (20,)}
    base = {name: rng.normal(0, 0.03, shape) for name, shape in shapes.items()}
    tuned = [
        {name: one + rng.normal(0, 0.002, one.shape) for name, one in base.items()}
        for _ in range(models)
    ]
    return [{name: it.astype(DTYPES[dtype]) for name, it in one.items()} for one in (base, *tuned)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("models", [1, 3, 7])
def test_one_pass_gives_the_bytes_of_two(method, dtype, models, begun):
    base, *tuned = family(models, dtype)
    given = dict(method=method, **METHODS[method])
    right = merge(base, tuned, sizes=TWICE, **given)
    assert not begun["passes"] and not begun["ended"]
    for kernel, threads in (("numpy", 1), ("native", 3)):
        assert_same(merge(base, tuned, sizes=SMALL, kernel=kernel, threads=threads, **given), right)
    if dtype == "float16":  # which no fused kernel writes
        assert not begun["passes"]
    elif models < 7:  # so many may leave more in doubt than is worth it
        assert begun["ended"]
    assert not begun["refused"]


def test_weights_and_outputs_of_another_dtype(begun):
    base, *tuned = family(3)
    for more in (dict(weights=[0.3, 1.0, -2.0]), dict(dtype="bfloat16"), dict(dtype="float16")):
        given = {"beta": 0.85, "gamma": 0.99, "alpha": 0.7, **more}
        before = begun["ended"]
        found = merge(base, tuned, sizes=SMALL, **given)
        assert_same(found, merge(base, tuned, sizes=TWICE, **given))
        assert (begun["ended"] > before) == (more != dict(dtype="float16"))


def read_of(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what is read of each tensor, but for samples."""
    read: Counter[str] = Counter()
    before, runs = Tensor.read_into, ranks.Unit.__dict__["_read_runs"]
    sampling: list[bool] = []

    def counted(self: Tensor, start: int, out: np.ndarray) -> None:
        read[f"{self.name} {id(self.source)}"] += 0 if sampling else out.size
        before(self, start, out)

    def sampled(self: Any, *given: Any) -> None:
        sampling.append(True)
        runs(self, *given)
        sampling.pop()

    def of_length(tensor: Tensor, start: int, n: int) -> np.ndarray:
        entries = np.empty(n, np.float32)
        before(tensor, start, entries)
        return entries.astype(np.float64)

    monkeypatch.setattr(lengths, "_read", of_length)
    monkeypatch.setattr(ranks.Unit, "_read_runs", sampled)
    monkeypatch.setattr(Tensor, "read_into", counted)
    return read


def test_every_input_is_read_once(monkeypatch, begun):
    base, *tuned = family(3)
    read = read_of(monkeypatch)
    merge(base, tuned, sizes=SMALL, beta=0.85, gamma=0.99, alpha=0.7)
    assert begun["ended"] and len(read) == 12
    assert all(n == base[key.split()[0]].size for key, n in read.items())


def test_what_is_held_has_its_limit(monkeypatch, begun):
    base, *tuned = family(3)
    given = dict(beta=0.85, gamma=0.99, alpha=0.7)
    right = merge(base, tuned, sizes=TWICE, **given)
    merge(base, tuned, sizes=SMALL, **given)
    every = begun["ended"]
    for limit in (1, 20_000, 40_000):
        before = begun["ended"]
        assert_same(
            merge(base, tuned, sizes=replace(SMALL, begun=limit), threads=2, **given), right
        )
        assert (begun["ended"] - before < every) and (begun["ended"] > before) == (limit > 1)


WRONG: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "below": lambda it: it // 2,
    "above": lambda it: np.minimum(it * np.uint32(2), 0x7F000000).astype(np.uint32),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bracket_that_misleads_leaves_nothing_begun(wrong, monkeypatch, begun):
    base, *tuned = family(2)
    given = dict(beta=0.85, gamma=0.99, alpha=0.7)
    right = merge(base, tuned, sizes=TWICE, **given)
    before, calls = tally.bracket, []

    def bracket(*asked: Any) -> np.ndarray:
        found = before(*asked)
        calls.append(found)
        return WRONG[wrong](found) if len(calls) % 5 == 1 else found

    monkeypatch.setattr(tally, "bracket", bracket)
    assert_same(merge(base, tuned, sizes=SMALL, **given), right)
    assert begun["passes"] and len(calls) > 4
    assert begun["bytes"] == 0  # what is dropped is given back


def test_a_sum_that_float64_does_not_hold_is_merged_again(begun):
    """Found for a segment alone, whose weights reach too far apart."""
    base, *tuned = family(3)
    base["w"][0, 0], tuned[0]["w"][0, 0] = 1e30, 2e30
    base["w"][1, 1] = 1e-30
    given = dict(beta=0.85, gamma=0.999, alpha=0.7)
    right = merge(base, tuned, sizes=TWICE, **given)
    assert_same(merge(base, tuned, sizes=SMALL, **given), right)
    assert begun["refused"] and begun["ended"]


def test_what_waits_for_more_than_ranks_is_not_begun(begun):
    base, *tuned = family(2)
    given = dict(beta=0.85, gamma=0.99, alpha=0.7, rescale="l1")
    assert_same(merge(base, tuned, sizes=SMALL, **given), merge(base, tuned, sizes=TWICE, **given))
    bad = [{**one, "v": np.where(np.arange(7001) == 5, np.inf, one["v"])} for one in tuned]
    more = dict(beta=0.85, gamma=0.99, alpha=0.7, allow_nonfinite=True)
    found = merge(base, bad, sizes=SMALL, **more)
    assert_same(found, merge(base, bad, sizes=TWICE, **more))
    assert not begun["ended"]


def test_models_that_lack_a_tensor_are_not_begun_there(begun):
    base, one, two = family(2)
    del two["v"]
    given = dict(beta=0.85, gamma=0.99, alpha=0.7, missing="base")
    found = merge(base, [one, two], sizes=SMALL, **given)
    assert_same(found, merge(base, [one, two], sizes=TWICE, **given))
    assert begun["ended"]


def test_alpha_is_found_and_its_ranks_are_used(begun, monkeypatch, tmp_path: Path):
    """The pass that finds alpha finds the ranks; the merge after it has none to find."""
    base, *tuned = family(3)
    paths = saved(tmp_path, [base, *tuned])
    starts: list[int] = []
    made = ranks.Unit.__init__

    def counted(self: Any, *given: Any) -> None:
        starts.append(1)
        made(self, *given)

    monkeypatch.setattr(ranks.Unit, "__init__", counted)
    found = merge(paths[0], paths[1:], sizes=SMALL, beta=0.85, gamma=0.99)
    assert len(starts) == 2 and not begun["passes"]  # a unit for each tensor that is surveyed
    assert set(found) == {"w", "v", "small"}
