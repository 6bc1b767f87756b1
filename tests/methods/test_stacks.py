"""Spectral methods on experts stacked in one tensor: matrix by matrix, whatever the rest does."""

from __future__ import annotations

import numpy as np
import pytest
from references import spectral, stacks

import breadcrumbs
from breadcrumbs.merging import estimate, opening
from breadcrumbs.methods import table
from breadcrumbs.methods.aggregates import Whole, matrices
from breadcrumbs.plan.recipe import Model, Recipe

METHODS = {
    "tsv_m": (spectral.tsv_m, {"alpha": 1.0}),
    "iso_c": (spectral.iso_c, {"alpha": 1.0}),
    "iso_cts": (spectral.iso_cts, {"alpha": 1.0, "common": 0.5}),
    "star": (spectral.star, {"alpha": 1.0}),
    "wudi": (spectral.wudi, {"alpha": 1.0, "solver": "adam", "steps": 20, "rate": 0.001}),
}
STACK = "model.layers.0.mlp.experts.gate_up_proj"
BIAS = "model.layers.0.mlp.experts.gate_up_proj_bias"
LINEAR = "block_sparse_moe.input_linear.weight"
KERNEL = "conv1.weight"
SHAPES = {STACK: (4, 6, 10), BIAS: (4, 10), LINEAR: (3, 9, 5), KERNEL: (4, 6, 3)}


def arrays(seed: int, dtype: type = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


BASE, MODELS = arrays(0), [arrays(seed) for seed in (1, 2, 3)]


def of(name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    return BASE[name], [model[name] for model in MODELS]


@pytest.mark.parametrize("method", METHODS)
def test_matrices_of_a_stack_are_merged_one_by_one(method):
    reference, given = METHODS[method]
    merged = breadcrumbs.merge(BASE, MODELS, method=method, **given)
    for name in (STACK, LINEAR):
        np.testing.assert_allclose(
            merged[name], stacks.each(reference, *of(name), **given), atol=1e-10
        )
        mean = stacks.rows(*of(name))
        assert np.abs(merged[name] - mean).max() > 0.01
    for name in (BIAS, KERNEL):
        np.testing.assert_allclose(merged[name], stacks.rows(*of(name)), atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_stack_is_what_its_matrices_are_alone(method):
    given = METHODS[method][1]
    merged = breadcrumbs.merge(BASE, MODELS, method=method, only=STACK, **given)[STACK]
    for e in range(4):
        base, *models = ({"w": every[STACK][e].copy()} for every in (BASE, *MODELS))
        alone = breadcrumbs.merge(base, models, method=method, **given)["w"]
        np.testing.assert_allclose(merged[e], alone, atol=1e-12)


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "star"])
def test_the_order_of_models_changes_no_bit_of_a_stack_in_float32(method):
    base, *models = (arrays(seed, np.float32) for seed in range(4))
    there = breadcrumbs.merge(base, models, method=method, alpha=1.0)
    back = breadcrumbs.merge(base, models[::-1], method=method, alpha=1.0)
    np.testing.assert_array_equal(there[STACK], back[STACK])


def test_stack_says_otherwise():
    reference, given = METHODS["iso_c"]
    whole = breadcrumbs.merge(BASE, MODELS, method="iso_c", stack="whole", **given)
    np.testing.assert_allclose(whole[STACK], stacks.rows(*of(STACK)), atol=1e-10)
    one = {"tensors": KERNEL, "stack": "each"}
    each = breadcrumbs.merge(BASE, MODELS, method="iso_c", overrides=[one], **given)
    expected = stacks.each(reference, *of(KERNEL), **given)
    np.testing.assert_allclose(each[KERNEL], expected, atol=1e-10)
    with pytest.raises(breadcrumbs.errors.RecipeError, match="stack"):
        breadcrumbs.merge(BASE, MODELS, method="iso_c", stack="some")


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("mlp.experts.down_proj", (8, 4, 6), (4, 6)),
        ("language_model.layers.3.feed_forward.experts.gate_up_proj", (8, 4, 6), (4, 6)),
        ("block_sparse_moe.output_linear.weight", (8, 4, 6), (4, 6)),
        ("mlp.experts.down_proj_bias", (8, 4), (4,)),
        ("mlp.experts.3.down_proj.weight", (4, 6), (4, 6)),
        ("mlp.experts.3.conv.weight", (8, 4, 3), (8, 4, 3)),
        ("block_sparse_moe.experts.3.conv.weight", (8, 4, 3), (8, 4, 3)),
        ("mlp.shared_expert.down_proj.weight", (4, 6), (4, 6)),
        ("block_sparse_moe.gate.weight", (8, 4), (8, 4)),
        ("mlp.experts.weight", (8, 4, 3, 3), (8, 4, 3, 3)),
        ("encoder.conv1.weight", (8, 4, 3), (8, 4, 3)),
        ("experts_conv.weight", (8, 4, 3), (8, 4, 3)),
        ("bias", (8, 4), (8, 4)),
    ],
)
def test_what_is_a_stack(name, shape, expected):
    assert matrices.each(name, shape, {}) == expected


def test_all_methods_with_matrices_know_of_stacks():
    found = set()
    for name, method in table.METHODS.items():
        aggregate = method.aggregate
        if isinstance(aggregate, Whole) and "stack" in aggregate.parameters:
            assert aggregate.each is matrices.each
            found.add(name)
    assert found >= set(METHODS)


@pytest.mark.parametrize("transform", ["none", "breadcrumbs", "dare", "della", "rtvq"])
def test_threads_and_files_change_no_bit(tmp_path, transform):
    base, *models = (arrays(seed, np.float32) for seed in range(4))
    given = {"method": f"{transform}+tsv_m", "alpha": 1.0}
    first = breadcrumbs.merge(base, models, threads=1, **given)
    again = breadcrumbs.merge(base, models, threads=4, **given)
    breadcrumbs.merge(base, models, output=tmp_path / "out.safetensors", threads=3, **given)
    with breadcrumbs.open(tmp_path / "out.safetensors") as files:
        for name in SHAPES:
            np.testing.assert_array_equal(first[name], again[name])
            np.testing.assert_array_equal(first[name], files[name])


def test_a_stack_needs_the_memory_of_a_matrix_for_each_thread():
    experts, m, n = 64, 256, 512
    zeros = np.zeros((experts, m, n), np.float32)

    def needed(name: str, threads: int, method: str = "tsv_m") -> int:
        recipe = Recipe("base", (Model("a"), Model("b")), method)
        with opening.opened(recipe, [{name: zeros}] * 3) as plan:
            return estimate.memory(plan, threads)

    held = m * n * 3 * 20
    one, two = needed(STACK, 1), needed(STACK, 2)
    assert needed(KERNEL, 1) < one  # gets the mean, chunk by chunk
    assert two - one < 2 * held + (64 << 20)
    assert needed(STACK, 1, "breadcrumbs+tsv_m") > experts * held  # ranked together


def test_a_stack_is_held_matrix_by_matrix():
    """The pieces of the jobs are the matrices, each once."""
    from breadcrumbs.plan import units

    recipe = Recipe("base", (Model("a"), Model("b")), "iso_c")
    with opening.opened(recipe, [BASE, *MODELS[:2]]) as plan:
        jobs = {plan.tensors[job.pieces[0].index].name: job for job in units.jobs(plan)}
    assert [(s.start, s.stop) for s in jobs[STACK].segments()] == [
        (60 * e, 60 * e + 60) for e in range(4)
    ]
    assert [(s.start, s.stop) for s in jobs[BIAS].segments()] == [(0, 40)]
    assert [(s.start, s.stop) for s in jobs[KERNEL].segments()] == [(0, 72)]
