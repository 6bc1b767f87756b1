"""`granularity: kind`: embeddings and heads are ranked row by row, other tensors as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.merging import files as merging_files
from breadcrumbs.merging import opening
from breadcrumbs.plan.recipe import Model, Recipe

State = dict[str, np.ndarray]
TABLES = ("model.embed_tokens.weight", "lm_head.weight", "bert.embeddings.word_embeddings.weight")
OTHERS = ("model.layers.0.mlp.up_proj.weight", "embeddings.position_embeddings.weight", "norm.bias")
SHAPES = {name: (40, 24) for name in TABLES} | {name: (24, 40) for name in OTHERS[:2]}


def family(models: int) -> tuple[State, list[State]]:
    """Return models whose rows have changes of very unequal size."""
    rng = np.random.default_rng(11)
    shapes = {**SHAPES, "norm.bias": (40,)}
    base = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    def tuned() -> State:
        sizes = {n: 10.0 ** rng.uniform(-3, 0, (*v.shape[:-1], 1)) for n, v in base.items()}
        return {
            n: (v + sizes[n] * rng.standard_normal(v.shape)).astype(np.float32)
            for n, v in base.items()
        }

    return base, [tuned() for _ in range(models)]


def kept(tau: np.ndarray, first: float, last: float, by_row: bool) -> np.ndarray:
    """Return what is kept of ranks above ``first`` up to ``last``, as fractions, one by one."""
    found = np.zeros_like(tau)
    units = tau if by_row else tau.reshape(1, -1)
    out = found if by_row else found.reshape(1, -1)
    for row, values in enumerate(units):
        order = sorted(range(len(values)), key=lambda i: (abs(values[i]), i))
        low = int(np.floor(first * len(values) + 1e-9))
        high = len(values) - int(np.floor((1 - last) * len(values) + 1e-9))
        for place in order[low:high]:
            out[row, place] = values[place]
    return found


CASES: list[tuple[dict[str, Any], float, float]] = [
    ({"method": "breadcrumbs", "beta": 0.5, "gamma": 0.9}, 0.5, 0.9),
    ({"method": "magnitude", "density": 0.25}, 0.75, 1.0),
    ({"method": "top_masking", "outliers": 0.125}, 0.0, 0.875),
    ({"method": "bottom_masking", "density": 0.25}, 0.75, 1.0),
]


@pytest.mark.parametrize("kernel", ["numpy", "native"])
@pytest.mark.parametrize(("how", "first", "last"), CASES, ids=lambda x: str(x)[:24])
@pytest.mark.parametrize("given", [{}, {"granularity": "kind"}, {"granularity": "tensor"}])
def test_rows_of_tables_are_ranked_alone(
    how: dict[str, Any], first: float, last: float, given: dict[str, Any], kernel: str
) -> None:
    base, (model,) = family(1)
    merged = breadcrumbs.merge(base, [model], alpha=1, kernel=kernel, **how, **given)
    for name, value in base.items():
        by_row = name in TABLES and given != {"granularity": "tensor"}
        expected = kept(model[name] - value, first, last, by_row)
        changed = merged[name] != value
        assert np.array_equal(changed, expected != 0), (name, by_row)
        assert np.allclose(merged[name] - value, expected, atol=1e-6)


MORE_TABLES = ["transformer.wte.weight", "shared.weight", "embed_in", "tokens_embed.weight"]


@pytest.mark.parametrize("name", [*TABLES, *MORE_TABLES])
def test_these_are_tables(name: str) -> None:
    assert is_table(name)


@pytest.mark.parametrize(
    "name",
    [
        *OTHERS,
        "lm_head.bias",
        "cls.predictions.bias",
        "vision.patch_embed.proj.weight",
        "wpe.weight",
    ],
)
def test_these_are_none(name: str) -> None:
    assert not is_table(name)


CUT = [
    ("breadcrumbs", {}, "breadcrumbs"),
    ("magnitude", {"density": 0.2}, "magnitude"),
    ("magnitude", {"density": 0.2}, "ties"),
    ("breadcrumbs", {"granularity": "tensor"}, "breadcrumbs_ties"),
    ("breadcrumbs", {}, "breadcrumbs_ties"),
]


@pytest.mark.parametrize(("transform", "given", "method"), CUT)
def test_files_that_were_cut_give_the_bits_of_whole_models(
    tmp_path: Path, transform: str, given: dict[str, Any], method: str
) -> None:
    base, models = family(2)
    save_file(base, tmp_path / "base.safetensors")
    files = []
    for number, model in enumerate(models):
        save_file(model, tmp_path / f"m{number}.safetensors")
        files.append(str(tmp_path / f"t{number}.safetensors"))
        source = tmp_path / f"m{number}.safetensors"
        tasks.pack(tmp_path / "base.safetensors", source, files[-1], transform=transform, **given)
    how: dict[str, Any] = {"method": method, "alpha": 0.4}
    unit: dict[str, Any] = {"granularity": "kind"} | given
    whole = breadcrumbs.merge(base, models, **how, **unit)
    found = breadcrumbs.merge(tmp_path / "base.safetensors", files, **how)
    assert all(found[name].tobytes() == whole[name].tobytes() for name in base)


def shifted(size: float, name: str = TABLES[0]) -> tuple[State, list[State]]:
    """Return models whose rows moved, and by one shift of all of them besides."""
    rng = np.random.default_rng(4)
    base = {
        name: rng.standard_normal((300, 16)).astype(np.float32),
        "h.weight": rng.standard_normal((16, 16)).astype(np.float32),
    }
    return base, [
        {
            name: base[name]
            + (0.1 * rng.standard_normal((300, 16)) + size * rng.choice([-1, 1], 16)).astype("f"),
            "h.weight": base["h.weight"] + rng.normal(0, 0.01, (16, 16)).astype("f"),
        }
        for _ in range(2)
    ]


def said(base: State, models: list[State], method: str, **given: Any) -> list[str]:
    names = tuple(Model(f"m{number}") for number in range(len(models)))
    with opening.opened(Recipe("base", names, method, given), [base, *models]) as plan:
        _, report = merging_files.to_arrays(plan, threads=1)
    return [line for line in report.warnings if "moved alike" in line]


@pytest.mark.parametrize("size", [0.1, 0.3])
def test_a_shift_of_a_tied_table_is_warned_of_where_it_is_ranked_as_a_whole(size: float) -> None:
    base, models = shifted(size)
    (line,) = said(base, models, "ties")
    assert "give granularity row" in line and "worse than the base" in line
    assert said(base, models, "breadcrumbs", granularity="tensor", alpha=0.5)
    for method, given in (
        ("ties", {"granularity": "row"}),
        ("ties", {"granularity": "kind"}),
        ("breadcrumbs", {"alpha": 0.5}),
        ("average", {}),
    ):
        assert not said(base, models, method, **given), (method, given)
    assert said(base, models[:1], "ties")
    assert not said(base, models[:1], "ties", granularity="row")


def test_without_a_shift_or_with_a_head_of_its_own_nothing_is_said() -> None:
    assert not said(*shifted(0.0), "ties")
    base, models = shifted(0.3)
    for state in (base, *models):
        state["lm_head.weight"] = state[TABLES[0]] + np.float32(0.5)
    assert not said(base, models, "ties")
    assert not said(*shifted(0.3, "layers.0.mlp.weight"), "ties")
