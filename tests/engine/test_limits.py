"""Shapes and numbers at the edge of what the engine is made for: right, or refused in one line."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from families import merge
from references import spectral

import breadcrumbs
from breadcrumbs import plan
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.cli.group import main
from breadcrumbs.errors import RecipeError
from breadcrumbs.kernels.constants import PART
from breadcrumbs.merging import estimate
from breadcrumbs.methods import registry
from breadcrumbs.methods.aggregates import Whole
from breadcrumbs.methods.published.wudi import WUDI
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.plan import USUAL, Sizes, recipe
from breadcrumbs.plan.recipe import Model, Recipe


def family(seed: int, shape: tuple[int, ...], models: int = 2, dtype: Any = np.float32):
    rng = np.random.default_rng(seed)
    base = {"w": rng.standard_normal(shape).astype(dtype), "v": np.ones(5, dtype)}
    tuned = [
        {"w": base["w"] + rng.standard_normal(shape).astype(dtype) / 8, "v": base["v"] * (2 + i)}
        for i in range(models)
    ]
    return base, tuned


# --- rows longer than a chunk, ranked one by one, where the whole tensor is looked at ------------

LOOKS = [
    ("breadcrumbs+tsv_m", 2, {}),
    ("breadcrumbs+star", 2, {}),
    ("breadcrumbs+nuslerp", 2, {"angles": "row"}),
    ("breadcrumbs+multislerp", 2, {}),
    ("breadcrumbs+model_stock", 2, {}),
    ("breadcrumbs+sum", 2, {"rescale": "l1"}),
    ("breadcrumbs+elect", 2, {"rescale": "l1"}),
]


@pytest.mark.parametrize(("method", "models", "more"), LOOKS)
@pytest.mark.parametrize("kernel", ["numpy", "native"])
def test_long_rows_are_ranked_where_the_whole_tensor_is_looked_at(method, models, more, kernel):
    base, tuned = family(0, (7, 300), models)
    arguments = dict(method=method, granularity="row", beta=0.3, gamma=0.9, **more)
    if "alpha" in registry.get(method).parameters:
        arguments["alpha"] = 0.7
    whole = breadcrumbs.merge(base, tuned, kernel=kernel, **arguments)
    arguments["sizes"] = Sizes(chunk=64, arena=4096)
    for threads in (1, 3):
        found = merge(base, tuned, kernel=kernel, threads=threads, **arguments)
        assert all(found[name].tobytes() == whole[name].tobytes() for name in whole)
    tensor = merge(base, tuned, **{**arguments, "granularity": "tensor"})
    assert tensor["w"].tobytes() != whole["w"].tobytes(), "rows are not the tensor"


def test_rows_over_the_chunk_as_it_is(tmp_path):
    base, tuned = family(1, (3, USUAL.chunk + 500))
    arguments = dict(method="breadcrumbs+iso_c", granularity="row", beta=0.5, gamma=0.99, alpha=1)
    found = breadcrumbs.merge(base, tuned, **arguments)
    larger = merge(base, tuned, sizes=Sizes(chunk=1 << 18), **arguments)
    assert larger["w"].tobytes() == found["w"].tobytes()


# --- memory that is told before it is taken ------------------------------------------------------


class Pattern:
    """Bytes that are made of a name, however many."""

    def __init__(self, name: str):
        self.unit = name.encode().ljust(16, b".")

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out``; no two names have the same bytes."""
        many = self.unit * (len(out) // 16 + 2)
        out[:] = many[start % 16 : start % 16 + len(out)]


def planned(shapes: dict[str, tuple[int, ...]], method: str, models: int = 2, **values: Any):
    """Return the plan of a merge of tensors that hold nothing."""

    def checkpoint(label: str) -> Checkpoint:
        tensors = {n: Tensor(n, "BF16", s, Pattern(n)) for n, s in shapes.items()}
        return Checkpoint(label, tensors)

    names = tuple(f"model {i}" for i in range(models))
    made = Recipe("base", tuple(Model(name) for name in names), method, values)
    return plan.make(made, checkpoint("base"), [checkpoint(name) for name in names])


def test_wudi_of_a_wide_matrix_takes_no_square_of_its_columns():
    plan = planned({"w": (2, 70_000)}, "wudi")
    assert estimate.memory(plan, 1) < 400e6
    thick = planned({"w": (30_000, 70_000)}, "wudi")
    assert estimate.memory(thick, 1) > 70_000**2 * 8
    assert WUDI.memory((30_000, 70_000), 2) >= 7 * 30_000 * 70_000 + 2 * 70_000**2
    assert WUDI.memory((2, 70_000), 2) < 70_000**2
    code = (
        "import numpy as np, breadcrumbs, sys; from breadcrumbs import machine\n"
        "base, rng = {'w': np.zeros((2, 70_000), np.float32)}, np.random.default_rng(0)\n"
        "tuned = [{'w': rng.standard_normal((2, 70_000), np.float32)} for _ in range(2)]\n"
        "breadcrumbs.merge(base, tuned, method='wudi', kernel='numpy', threads=1)\n"
        "print(machine.peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500e6


@pytest.mark.parametrize("shape", [(1, 9), (3, 40), (4, 17), (4, 16), (9, 4), (2, 200)])
@pytest.mark.parametrize("models", [2, 3])  # of one, gradients are 0 but for rounding
def test_wudi_by_factors_is_wudi(shape, models):
    rng = np.random.default_rng(3)
    taus = rng.standard_normal((models, *shape))
    taus[0] *= 1e-3
    adam = {"solver": "adam", "steps": 9, "rate": 0.01}
    for given in (adam, {"solver": "flow", "time": 2.0}, {"solver": "ridge", "ridge": 0.1}):
        values = {"normalize": "norms", **given}
        found = WUDI.combine(np.zeros(shape), taus.copy(), [1.0] * models, values)
        right = spectral.wudi(np.zeros(shape), list(taus), **given)
        assert np.allclose(found, right, rtol=0, atol=1e-9)


def test_a_model_ranked_as_a_whole_says_what_it_takes():
    layers = {f"{i}.w": (8192, 28_672) for i in range(1724)}  # 405 billion
    plan = planned(layers, "ties", granularity="model", alpha=1)
    need = estimate.memory(plan, 1)
    entries = 1724 * 8192 * 28_672
    cuts = entries // USUAL.chunk * 8 * 5 * 2
    assert estimate.budget(plan, 1, None) == USUAL.budget
    assert estimate.budget(plan, 1, need - USUAL.budget) < USUAL.budget
    assert estimate.budget(plan, 1, 10**6) == USUAL.least_budget
    assert cuts + 2 * USUAL.budget < need < 3e9
    with pytest.raises(RecipeError, match=r"--max-memory 300 MB: this merge needs about"):
        estimate.threads(plan, 1, 300 * 10**6)
    small = planned({"w": (1000, 1000)}, "ties", granularity="model", alpha=1)
    assert estimate.memory(small, 1) < 200e6


@pytest.mark.parametrize("method", ["breadcrumbs", "ties", "task_arithmetic"])
def test_sizes_and_threads_fit_into_memory(method):
    plan = planned({"w": (20_000, 20_000)}, method, alpha=1)
    usual = estimate.memory(plan, 4)
    assert estimate.fitted(plan, 4, None) == (plan, 4)
    found = []
    for most in sorted((2 * usual, usual, usual * 3 // 4, usual // 2, 180 << 20), reverse=True):
        fits, threads = estimate.fitted(plan, 4, most)
        assert estimate.memory(fits, threads) <= most
        found.append((threads, fits.sizes.arena))
    assert found[0] == found[1] == (4, USUAL.arena)
    assert found == sorted(found, reverse=True)
    assert found[-1][1] == USUAL.least_arena


WHOLE = [
    name
    for name, it in METHODS.items()
    if isinstance(it.aggregate, Whole) and not it.aggregate.run(it.complete({}))
]


@pytest.mark.parametrize("method", WHOLE)
def test_what_aggregates_of_whole_tensors_take_grows_with_the_tensor(method):
    if METHODS[method].statistics is not None:
        return
    least, most = METHODS[method].aggregate.models
    number = min(max(least, 4), most or 4)
    shapes = [(500, 700), (700, 500), (2, 175_000), (175_000, 2), (350_000,), (5, 7, 10_000)]
    needs = [estimate.memory(planned({"w": shape}, method, number), 1) for shape in shapes]
    none = estimate.memory(planned({"w": (1, 1)}, method, number), 1)
    large = [need - none > 350_000 * 8 * 5 for need in needs]
    matrices = METHODS[method].aggregate.by_entry  # and chunks of what is no matrix
    assert large == [True] * 4 + [not matrices] * 2


@pytest.mark.parametrize("method", ["cabs", "sce"])
def test_what_goes_through_a_tensor_in_pieces_does_not_grow_with_it(method):
    sizes = [(USUAL.chunk, 64), (USUAL.chunk, 1 << 16)]
    small, large = (estimate.memory(planned({"w": size}, method, 4), 2) for size in sizes)
    assert small == large < 500e6


# --- numbers beyond the squares of float64 -------------------------------------------------------

SCALES = [1e-320, 1e-300, 1e-162, 1e-154, 1e-100, 1.0, 1e100, 1e154, 1e200, 1e300]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "method", ["slerp", "nuslerp", "multislerp", "karcher", "model_stock", "nearswap"]
)
def test_a_model_merged_with_itself_is_itself(method, scale):
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((6, 5)) * scale}
    number = 1 if method in ("slerp", "nearswap") else 2
    same = [{"w": base["w"].copy()}] * number
    found = breadcrumbs.merge(base, same, method=method)["w"]
    assert found.tobytes() == base["w"].tobytes()


@pytest.mark.parametrize("scale", SCALES[1:])
@pytest.mark.parametrize("angles", ["tensor", "row", "column"])
def test_angles_do_not_depend_on_the_scale(scale, angles):
    rng = np.random.default_rng(1)
    base = {"w": np.zeros((4, 3))}
    tuned = [{"w": rng.integers(-64, 65, (4, 3)) / 64} for _ in range(2)]
    times = 2.0 ** np.round(np.log2(scale))
    large = [{"w": model["w"] * times} for model in tuned]
    one, other = (
        breadcrumbs.merge(base, models, method="nuslerp", angles=angles)["w"]
        for models in (tuned, large)
    )
    assert np.allclose(other / times, one, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [1e-170, 1e160])
def test_one_scale_is_that_of_the_whole_tensor(scale):
    rng = np.random.default_rng(3)
    base = {"w": np.zeros(6 * PART)}
    tuned = [{"w": rng.standard_normal(base["w"].size) * scale} for _ in range(2)]
    for model in tuned:
        model["w"][: 2 * PART] *= 1e-9  # a segment
    whole = breadcrumbs.merge(base, tuned, method="nuslerp", weights=[1, 3])["w"]
    small = Sizes(chunk=PART, arena=1)
    parts = merge(base, tuned, sizes=small, method="nuslerp", weights=[1, 3])["w"]
    assert parts.tobytes() == whole.tobytes()
    times = 2.0 ** np.round(-np.log2(scale))
    near = [{"w": model["w"] * times} for model in tuned]
    right = breadcrumbs.merge(base, near, method="nuslerp", weights=[1, 3])["w"]
    assert np.allclose(parts * times, right, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [*SCALES, 1e-161, 3e-162, 1e153])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1e-200, 1e-200], [1e-160, 1.0]])
@pytest.mark.parametrize("method", ["breadcrumbs", "ties", "task_arithmetic"])
def test_alpha_of_extreme_weights_is_a_number_or_a_refusal(method, scale, weights):
    rng = np.random.default_rng(2)
    base = {"w": np.zeros((6, 5))}
    tuned = [{"w": rng.standard_normal((6, 5)) * scale} for _ in range(2)]
    try:
        found = breadcrumbs.merge(base, tuned, method=method, weights=weights, alpha="auto")["w"]
    except RecipeError as error:
        assert "alpha: auto" in str(error) and "Give a number" in str(error)
        assert not 1e-100 < scale < 1e100 or min(weights) < 1
        return
    assert np.isfinite(found).all()
    assert found.any() or scale * max(weights) < 1e-300, "the terms themselves are 0"


# --- recipes as they are printed ------------------------------------------------------------------


def test_printed_numbers_are_numbers():
    flags = ["-m", "breadcrumbs", "-p", "alpha=0.5", "-p", "beta=0.29", "-p", "gamma=0.990"]
    flags += ["--override", "*.bias:alpha=2", "-p", "granularity=row"]
    done = CliRunner().invoke(main, ["merge", "base", "a", *flags, "--print-recipe"])
    assert done.exit_code == 0, done.output
    for line in ("  alpha: 0.5", "  beta: 0.29", "  gamma: 0.99", "  granularity: row"):
        assert line in done.output.splitlines()
    assert "- tensors: '*.bias'\n  alpha: 2.0" in done.output and "'0" not in done.output
    made = recipe.from_mapping(yaml.safe_load(done.output))
    assert made.parameters["beta"] == 0.29


def test_decimals_that_no_float_is_keep_their_spelling():
    exact = "0.2900000000000000000000001"
    done = CliRunner().invoke(
        main, ["merge", "base", "a", "-m", "breadcrumbs", "-p", f"beta={exact}", "--print-recipe"]
    )
    assert f"beta: '{exact}'" in done.output
    auto = CliRunner().invoke(main, ["merge", "b", "a", "-p", "alpha=auto", "--print-recipe"])
    assert "alpha: auto" in auto.output
    which = CliRunner().invoke(
        main, ["merge", "b", "a", "c", "-m", "emr", "-p", "task=1", "--print-recipe"]
    )
    assert "task: '1'" in which.output  # a name, or a number
