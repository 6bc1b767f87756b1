"""What is no matrix gets its mean from a method of matrices chunk by chunk, to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from families import family, merge, taus_of

from breadcrumbs import plan
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.merging import estimate
from breadcrumbs.plan.recipe import Model, Recipe

SHAPES = {"model.embed_tokens.weight": (13, 9), "v": (31,), "s": (), "w": (6, 4)}
SMALL = plan.Sizes(chunk=29, arena=1 << 12, run=8)


def mean(base: np.ndarray, models: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Return the base and the mean of the terms, summed in the order of weights and contents."""
    taus = taus_of(base, models)
    keys = [(w, blake3(tau.tobytes()).digest()) for w, tau in zip(weights, taus, strict=True)]
    total = np.zeros(base.shape)
    for t in sorted(range(len(keys)), key=keys.__getitem__):
        total = total + weights[t] * taus[t]
    return base + total / len(taus)


@pytest.mark.parametrize("method", ["wudi", "tsv_m", "iso_c", "star"])
@pytest.mark.parametrize("models", [1, 3, 9])
def test_a_table_has_the_bits_of_its_mean(method: str, models: int) -> None:
    base, *ft = family(3, "float64", models, "normal", SHAPES)
    weights = [1.0 + (t % 3) / 7 for t in range(models)]
    given = {"method": method, "weights": weights, "alpha": 1.0}
    found = merge(base, ft, sizes=SMALL, **given)
    whole = merge(base, ft, **given)
    for name in SHAPES:
        assert found[name].tobytes() == whole[name].tobytes(), name
    for name in ("model.embed_tokens.weight", "v"):
        expected = mean(base[name], [model[name] for model in ft], weights)
        assert np.array_equal(found[name], expected), name


def test_a_table_takes_no_memory() -> None:
    shapes = {"model.embed_tokens.weight": (152_000, 8192), "layer.weight": (512, 512)}

    def of(label: str) -> Checkpoint:
        return Checkpoint(label, {n: Tensor(n, "BF16", s, None) for n, s in shapes.items()})

    names = [f"model {number}" for number in range(3)]
    for method, least in (("wudi", 4), ("tsv_m", 2), ("iso_c", 4)):
        recipe = Recipe("base", tuple(Model(name) for name in names), method, {})
        made = plan.make(recipe, of("base"), [of(name) for name in names])
        assert estimate.memory(made, 1) < 300e6
        matrix = Recipe("base", recipe.models, method, {"tables": "matrix"})
        made = plan.make(matrix, of("base"), [of(name) for name in names])
        assert estimate.memory(made, 1) > least * 8 * 152_000 * 8192
