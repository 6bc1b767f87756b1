"""How long the base and the task vectors are, before anything is merged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from breadcrumbs import tasks
from breadcrumbs.merging import opening
from breadcrumbs.plan import Plan, lengths
from breadcrumbs.plan.recipe import Model, Recipe, override

State = dict[str, np.ndarray]


def lengths_of(
    base: State,
    models: Sequence[Mapping[str, np.ndarray]],
    weights: Sequence[float] = (),
    **more: Any,
) -> lengths.Lengths:
    given = weights or [1.0] * len(models)
    named = tuple(Model(f"m{i}", weight=w) for i, w in enumerate(given))
    asked = Recipe("base", named, "task_arithmetic", {}, **more)
    with opening.opened(asked, [base, *models]) as plan:
        return lengths.of(plan)


def slow(base: State, model: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> float:
    total = 0.0
    for name, theirs in model.items():
        pairs = zip(base[name].ravel().tolist(), theirs.ravel().tolist(), strict=True)
        total += sum((weights[name] * (y - x)) ** 2 for x, y in pairs)
    return math.sqrt(total)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float64])
def test_of_small_models_every_entry_counts(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    shapes = {"a": (70, 41), "b": (3,), "empty": (0, 2), "scalar": ()}
    base = {n: rng.standard_normal(s).astype(dtype) for n, s in shapes.items()}
    models = [
        {
            n: np.asarray(v + 0.1 * rng.standard_normal(v.shape)).astype(dtype)
            for n, v in base.items()
        }
        for _ in range(2)
    ]
    del models[1]["b"]
    more = {"overrides": (override({"tensors": "a", "weight": 3.0}, "here"),), "missing": "base"}
    found = lengths_of(base, models, [0.5, 2.0], **more)
    ones = dict.fromkeys(shapes, 1.0)
    assert found.exact
    assert found.base == pytest.approx(
        slow(
            dict.fromkeys(base, np.zeros(())) | {n: np.zeros_like(v) for n, v in base.items()},
            base,
            ones,
        )
    )
    for t, weight in enumerate((0.5, 2.0)):
        assert found.models[t] == pytest.approx(slow(base, models[t], ones))
        mine = {n: 3.0 if n == "a" else weight for n in shapes}
        assert found.weighted[t] == pytest.approx(slow(base, models[t], mine))


def test_the_mean_does_not_depend_on_the_scale_of_weights_and_leaves_out_what_has_none() -> None:
    base = {"w": np.zeros(4)}
    models = [{"w": np.full(4, x)} for x in (1.0, 2.0, 50.0)]  # lengths 2, 4, 100
    for scale in (1.0, -0.25, 8.0):
        found = lengths_of(base, models, [scale, 3 * scale, 0.0])
        assert found.mean == pytest.approx((2 + 3 * 4) / 4)
    assert lengths_of(base, [base]).mean == 0
    assert lengths_of(base, []).mean == 0


def test_only_what_is_merged_counts() -> None:
    base = {"w": np.ones(4), "head": np.full(9, 7.0)}
    models = [{"w": np.full(4, 2.0), "head": np.zeros(9)}]
    found = lengths_of(base, models, exclude=("head",))
    assert (found.base, found.models) == (2.0, (2.0,))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_counts_as_nothing(bad: float) -> None:
    base, model = {"w": np.zeros(5)}, {"w": np.array([3.0, bad, 0, 0, 4.0])}
    found = lengths_of(base, [model])
    assert found.models == (5.0,)


def large(seed: int) -> tuple[State, list[State]]:
    """Return a model whose tensors moved by very different amounts, of very different sizes."""
    rng = np.random.default_rng(seed)
    shapes = [(300_000,), *[(40_000,)] * 20, *[(500,)] * 60]
    base = {f"t{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate(shapes)}
    moves = {name: rng.lognormal(0, 0.7) for name in base}
    models = [
        {
            n: v + (moves[n] * rng.standard_normal(v.shape)).astype(np.float32)
            for n, v in base.items()
        }
        for _ in range(2)
    ]
    return base, models


@pytest.mark.parametrize("seed", range(4))
def test_of_large_models_a_sample_is_near(seed: int) -> None:
    base, models = large(seed)
    found = lengths_of(base, models)
    assert not found.exact
    zeros = {name: np.zeros_like(value) for name, value in base.items()}
    for got, (a, b) in zip(
        (found.base, *found.models), ((zeros, base), *((base, m) for m in models)), strict=True
    ):
        exact = math.sqrt(sum(float(((b[n] - a[n]) ** 2).sum()) for n in a))
        assert got == pytest.approx(exact, rel=0.15)
    assert lengths_of(base, models) == found


def test_blocks_are_met_as_often_as_their_share_of_the_entries() -> None:
    rng = np.random.default_rng(2)
    for most in [1, 2, *[60_000] * 20]:
        sizes = rng.integers(1, most + 1, 300).tolist()
        blocks, scale, exact = lengths._blocks(sizes, 256)
        assert not exact and len(blocks) == 256 and scale == sum(sizes) / 256
        ends = np.cumsum(sizes)
        for i, (number, start, n) in enumerate(blocks):
            assert start >= 0 and start + n <= sizes[number] and 1 <= n <= lengths.BLOCK
            first = int(ends[number]) - sizes[number] + start  # it touches its part of the entries
            assert first < (i + 1) * scale and first + n > i * scale


def test_few_reads_tell_of_very_many_tensors() -> None:
    count = 3000
    base = {f"t{i}": np.zeros(8, np.float32) for i in range(count)}
    model = {name: np.full(8, 2.0, np.float32) for name in base}
    reads: list[int] = []

    class Counting:
        def __init__(self, source: Any):
            self.source = source

        def read_into(self, start: int, out: memoryview) -> None:
            reads.append(start)
            self.source.read_into(start, out)

    asked = Recipe("base", (Model("m"),), "task_arithmetic", {})
    with opening.opened(asked, [base, model]) as plan:
        for tensor in plan.tensors:
            for one in (tensor.base, *tensor.models):
                assert one is not None
                object.__setattr__(one, "source", Counting(one.source))
        found = lengths.of(plan)
    assert isinstance(plan, Plan)
    assert len(reads) == 2 * lengths.BLOCKS
    assert found.models[0] == pytest.approx(2 * math.sqrt(8 * count))


@pytest.mark.parametrize("size", [3_000, 1_500_000])
def test_of_task_files_what_they_were_before_they_were_cut(tmp_path: Path, size: int) -> None:
    rng = np.random.default_rng(3)
    base = {"w": rng.standard_normal(size).astype(np.float32), "b": np.ones(700, np.float32)}
    model = {
        n: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32) for n, v in base.items()
    }
    save_file(base, tmp_path / "base.safetensors")
    asked = Recipe("base", (Model("m"),), "task_arithmetic", {})
    with opening.opened(asked, [base, model]) as plan:
        whole = lengths.of(plan).models[0]
    for how in ({"transform": "none"}, {"transform": "breadcrumbs"}):
        path = str(tmp_path / f"{how['transform']}.safetensors")
        tasks.pack(base, model, path, **how)
        with opening.opened(asked, [tmp_path / "base.safetensors", path]) as plan:
            assert lengths.of(plan).models[0] == pytest.approx(whole, rel=0.1)
