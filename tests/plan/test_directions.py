"""Adapters merged into their models are told of where a method looks at directions."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from breadcrumbs.merging import opening
from breadcrumbs.plan.judgement import judged
from breadcrumbs.plan.recipe import Model, Recipe

SHAPES = {"a.weight": (64, 96), "b.weight": (128, 64), "c.weight": (64, 64), "norm": (64,)}
DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


def base_of(dtype) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.normal(0, 0.02, shape).astype(dtype) for n, shape in SHAPES.items()}


def adapted(base: dict[str, np.ndarray], seed: int, rank: int) -> dict[str, np.ndarray]:
    """Return the base with a product of thin matrices, of that rank, added to each matrix."""
    rng, found = np.random.default_rng(seed), dict(base)
    for name, old in base.items():
        if old.ndim == 2:
            left, right = (
                rng.normal(size=(old.shape[0], rank)),
                rng.normal(size=(rank, old.shape[1])),
            )
            change = left @ right * 1e-3 / np.sqrt(rank)
            found[name] = (old.astype(np.float64) + change).astype(old.dtype)
    return found


def warned(folder, base, models, method: str) -> list[str]:
    for name, tensors in {"base": base, **models}.items():
        save_file(tensors, folder / f"{name}.safetensors")
    paths = tuple(Model(str(folder / f"{name}.safetensors")) for name in models)
    recipe = Recipe(str(folder / "base.safetensors"), paths, method)
    with opening.opened(recipe) as plan:
        return [line for line in judged(plan).warnings if "directions" in line]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["iso_c", "tsv_m", "star"])
def test_an_adapter_merged_into_the_weights_is_named(tmp_path, dtype, method):
    base = base_of(dtype)
    models = {"lora": adapted(base, 1, 4), "full": adapted(base, 2, 64)}
    (line,) = warned(tmp_path, base, models, method)
    assert "lora" in line and "4 of 64 directions" in line and "BASE+ADAPTER" in line


@pytest.mark.parametrize("dtype", DTYPES)
def test_methods_that_look_at_entries_say_nothing(tmp_path, dtype):
    base = base_of(dtype)
    models = {"lora": adapted(base, 1, 4), "other": adapted(base, 2, 4)}
    for method in ("breadcrumbs", "ties", "cabs"):
        assert not warned(tmp_path, base, models, method)


def test_what_is_no_adapter_is_not_named(tmp_path):
    base = base_of(ml_dtypes.bfloat16)
    rng = np.random.default_rng(3)
    tiny = {
        n: (x.astype(np.float64) * (1 + 1e-3 * rng.normal(size=x.shape))).astype(x.dtype)
        for n, x in base.items()
    }  # all of it is about as large as rounding
    exact = dict(base)
    exact["a.weight"] = base["a.weight"].copy()
    exact["a.weight"][0] *= 2  # one direction, and nothing of rounding
    assert not warned(tmp_path, base, {"tiny": tiny, "exact": exact}, "iso_c")
