"""`alpha: auto`, by its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.cli import group
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.sweep import Sweep
from breadcrumbs.methods.method import Method
from breadcrumbs.methods.parameters import AUTO, defaults
from breadcrumbs.methods.table import METHODS
from breadcrumbs.plan import recipe

State = dict[str, np.ndarray]
TABLE = "model.embed_tokens.weight"


def family(models: int, dtype: Any = np.float32, seed: int = 3) -> tuple[State, list[State]]:
    rng = np.random.default_rng(seed)
    shapes = {"a": (90, 41), "b": (700,), "c.frozen": (30,)}
    base = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def tuned() -> State:
        moved = {n: (v + 0.1 * rng.standard_normal(v.shape)).astype(dtype) for n, v in base.items()}
        return {**moved, "c.frozen": base["c.frozen"]}

    return base, [tuned() for _ in range(models)]


def flat(state: State, names: tuple[str, ...] = ("a", "b", "c.frozen")) -> np.ndarray:
    return np.concatenate([state[name].astype(np.float64).ravel() for name in names])


def found(
    base: State, models: list[State], weights: list[float] | None = None, **how: Any
) -> float:
    """Return alpha by its definition, from a whole merge in float64."""
    wide = {name: value.astype(np.float64) for name, value in base.items()}
    others = [{name: value.astype(np.float64) for name, value in m.items()} for m in models]
    merged = breadcrumbs.merge(wide, others, alpha=1, weights=weights, **how)
    names = tuple(base)
    random = how.get("method") in RANDOM
    table = flat_sum(wide, others, weights, TABLE) > flat_sum(wide, others, weights) / 2
    mine = [flat(state, names) for state in (wide, *others, merged)]
    return rule(mine[0], mine[1:-1], mine[-1], weights, random, table)


def flat_sum(base: State, models: list[State], weights: Any, name: str = "") -> float:
    """Return the square of the sum of task vectors, of all tensors or of one."""
    names = [n for n in base if name in ("", n)]
    both = zip(models, weights or [1.0] * len(models), strict=True)
    total = (
        sum(w * (flat(m, tuple(names)) - flat(base, tuple(names))) for m, w in both) if names else 0
    )
    return float(np.sum(np.square(total)))


def rule(
    base: np.ndarray,
    models: list[np.ndarray],
    merged: np.ndarray,
    weights: list[float] | None,
    random: bool = False,
    table: bool = False,
) -> float:
    given = np.array(weights or [1.0] * len(models))
    taus = given[:, None] * (np.stack(models) - base)
    step, total = merged - base, taus.sum(axis=0)
    crowded = np.mean(np.linalg.norm(taus, axis=1)) / np.linalg.norm(total)
    share = step @ total / (total @ total)
    length = np.linalg.norm(total) / np.linalg.norm(step)
    limit = 1.5 * np.mean(np.linalg.norm(taus, axis=1)) / np.linalg.norm(step) / crowded**1.25
    if table:
        restored = min(1 / share, limit) if random else length
    else:
        restored = 1 / share if random else min(1 / share, limit)
    return float(f"{crowded**1.25 * restored / np.mean(np.abs(given)):.3g}")


#: Methods whose masks are drawn.
RANDOM = {"random_sparsed", "dare_linear", "dare_ties", "della_linear", "della"}


HOW = [
    {"method": "task_arithmetic"},
    {"method": "breadcrumbs", "beta": 0.7, "gamma": 0.95},
    {"method": "breadcrumbs", "variant": "authors"},
    {"method": "ties"},
    {"method": "dare_ties"},
    {"method": "consensus", "k": 1},
    {"method": "pcb"},
    {"method": "tatr"},
    {"method": "localize_and_stitch"},
]


@pytest.mark.parametrize("how", HOW, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_it_is_what_the_rule_says(how: dict[str, Any], dtype: Any) -> None:
    base, models = family(3, dtype)
    alpha = found(base, models, **how)
    merged = breadcrumbs.merge(base, models, alpha="auto", **how)
    expected = breadcrumbs.merge(base, models, alpha=alpha, **how)
    assert all(np.array_equal(merged[name], expected[name]) for name in base)


@pytest.mark.parametrize("how", HOW, ids=lambda how: "-".join(map(str, how.values())))
@pytest.mark.parametrize("size", [0.1, 30.0])
def test_where_embeddings_have_most_of_the_norm(how: dict[str, Any], size: float) -> None:
    base, models = family(3)
    rng = np.random.default_rng(8)
    base[TABLE] = rng.standard_normal((50, 7)).astype(np.float32)
    for model in models:
        moved = size * np.where(rng.random((50, 1)) < 0.1, 1.0, 0.01) * rng.standard_normal((50, 7))
        model[TABLE] = base[TABLE] + moved.astype(np.float32)
    alpha = found(base, models, **how)
    merged = breadcrumbs.merge(base, models, alpha="auto", **how)
    expected = breadcrumbs.merge(base, models, alpha=alpha, **how)
    assert all(np.array_equal(merged[name], expected[name]) for name in base)


def test_orthogonal_task_vectors_have_less_the_more_there_are() -> None:
    base = {"w": np.zeros(16, np.float32)}
    models = [{"w": np.eye(16, dtype=np.float32)[i]} for i in range(16)]
    for number, expected in ((1, 1.0), (16, 0.177)):  # 16 ** -.625
        some = models[:number]
        merged = breadcrumbs.merge(base, some, method="task_arithmetic", alpha="auto")
        assert merged["w"][:number] == pytest.approx([expected] * number)


@pytest.mark.parametrize("name", ["w", TABLE, "lm_head.weight", "transformer.wte.weight"])
def test_what_a_mask_takes_is_made_up_for_and_no_longer_than_it_may_be(name: str) -> None:
    base = {name: np.zeros((4, 4), np.float32)}
    tuned = {name: np.ones((4, 4), np.float32)}
    for kept, length in ((16, 1.0), (8, 2**0.5), (4, 1.5), (1, 1.5)):  # 1 / p would be 16 / kept
        how = {"method": "bottom_masking", "density": kept / 16, "granularity": "tensor"}
        merged = breadcrumbs.merge(base, [tuned], alpha="auto", **how)[name]
        assert np.count_nonzero(merged) == kept
        assert np.linalg.norm(merged) == pytest.approx(4 * (length if name == "w" else 1), rel=0.01)


@pytest.mark.parametrize(("name", "length"), [("w", 8**0.5), (TABLE, 1.5)])
def test_what_is_kept_at_random_stands_for_all(name: str, length: float) -> None:
    base = {name: np.zeros((64, 64), np.float32)}
    tuned = {name: np.ones((64, 64), np.float32)}
    how = {"method": "random_sparsed", "density": 0.125, "alpha": "auto"}
    merged = breadcrumbs.merge(base, [tuned], **how)[name]
    assert np.linalg.norm(merged) == pytest.approx(length * 64, rel=0.03)


@pytest.mark.parametrize("size", [1e-170, 1e-200, 1e160, 1e200])
def test_weights_whose_squares_are_no_numbers_give_one_line(size: float) -> None:
    base = {"w": np.zeros(8)}
    with pytest.raises(RecipeError, match="Give a number"):
        breadcrumbs.merge(base, [{"w": np.full(8, size)}], method="task_arithmetic", alpha="auto")


def test_alpha_does_not_depend_on_the_scale_of_weights() -> None:
    base, models = family(2)
    a, b = (
        breadcrumbs.merge(base, models, method="task_arithmetic", weights=weights, alpha="auto")
        for weights in ([1.0, 2.0], [2.0, 4.0])
    )
    assert np.linalg.norm(flat(a) - flat(b)) < 0.003 * np.linalg.norm(flat(a) - flat(base))
    alpha = found(base, models, [1.0, 2.0], method="task_arithmetic")
    c = breadcrumbs.merge(base, models, method="task_arithmetic", weights=[1.0, 2.0], alpha=alpha)
    assert all(np.array_equal(a[name], c[name]) for name in base)


def test_tensors_with_an_alpha_of_their_own_are_not_measured() -> None:
    base, models = family(3)
    overrides = [{"tensors": "b", "alpha": 0.25}]
    how = {"method": "task_arithmetic", "overrides": overrides}
    merged = breadcrumbs.merge(base, models, alpha="auto", **how)
    names = ("a", "c.frozen")
    whole = breadcrumbs.merge(base, models, method="task_arithmetic", alpha=1)
    parts = [flat(state, names) for state in (base, *models, whole)]
    alpha = rule(parts[0], parts[1:-1], parts[-1], None)
    expected = breadcrumbs.merge(base, models, alpha=alpha, **how)
    assert all(np.array_equal(merged[name], expected[name]) for name in base)


def test_weights_count_alike_wherever_they_are_said() -> None:
    base, models = family(3)
    how: dict[str, Any] = {"method": "task_arithmetic", "alpha": "auto"}
    plain = breadcrumbs.merge(base, models, weights=[0.5] * 3, **how)
    overrides = [{"tensors": "*", "weight": 0.5}]
    for weights in (None, [0.0] * 3):
        other = breadcrumbs.merge(base, models, weights=weights, overrides=overrides, **how)
        assert all(np.array_equal(plain[name], other[name]) for name in base)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_not_finite_changes_nothing(threads: int) -> None:
    base, models = family(3)
    how: dict[str, Any] = {"method": "ties", "threads": threads, "allow_nonfinite": True}
    alpha = found(base, models, method="ties")
    base["a"][0, 0] = np.nan
    there = breadcrumbs.merge(base, models, alpha="auto", **how)
    expected = breadcrumbs.merge(base, models, alpha=alpha, **how)
    assert all(np.array_equal(there[name], expected[name], equal_nan=True) for name in base)


def test_files_tell_the_number_and_make_the_same_bits_again(tmp_path: Path) -> None:
    base, models = family(3)
    paths = []
    for number, state in enumerate((base, *models)):
        paths.append(str(tmp_path / f"{number}.safetensors"))
        save_file(state, paths[-1])
    arguments = ["merge", *paths, "-o", str(tmp_path / "out"), "-p", "alpha=auto"]
    done = CliRunner().invoke(group.main, arguments)
    alpha = found(base, models)
    assert done.exit_code == 0, done.output
    assert f"alpha {alpha:g}, chosen automatically" in " ".join(done.output.split())
    made = recipe.load(tmp_path / "out" / "breadcrumbs.yaml")
    assert made.parameters["alpha"] == alpha
    merged = breadcrumbs.open(tmp_path / "out")
    expected = breadcrumbs.merge(base, models, alpha=alpha, threads=1)
    assert all(np.array_equal(merged[name], expected[name]) for name in base)
    with Sweep(paths[0]) as sweep:
        automatic = recipe.Recipe(
            paths[0], tuple(recipe.Model(path) for path in paths[1:]), parameters={"alpha": "auto"}
        )
        again = sweep.merged(automatic)
    assert all(np.array_equal(again[name], expected[name]) for name in base)


def test_where_nothing_changed_the_base_comes_back() -> None:
    base, _ = family(1)
    for models in ([], [dict(base)]):
        merged = breadcrumbs.merge(base, models, alpha="auto")
        assert all(np.array_equal(merged[name], base[name]) for name in base)


def test_where_the_weights_do_not_tell_a_number_is_asked_for() -> None:
    base, models = family(2)
    with pytest.raises(RecipeError, match=r"onto, give a number"):
        breadcrumbs.merge(base, models[:1], alpha="auto", onto=models[1])
    base, models = {"w": np.zeros(1)}, [{"w": np.array([1.0])}, {"w": np.array([2.0])}]
    how: dict[str, Any] = {"method": "random_sparsed", "density": 0.5, "weights": [1, -1]}
    away = [
        seed
        for seed in range(30)
        if breadcrumbs.merge(base, models, alpha=1, seed=seed, **how)["w"][0] == 1
    ]  # only the first is kept, and it leads away from the two
    with pytest.raises(RecipeError, match=r"points away from them. Give a number"):
        breadcrumbs.merge(base, models, seed=away[0], **how)


@pytest.mark.parametrize(
    "method",
    [m for m in METHODS.values() if defaults(m.parameters).get("alpha") == AUTO],
    ids=lambda method: method.name,
)
def test_it_is_the_default_where_no_alpha_is_published(method: Method) -> None:
    base, models = family(3)
    merged = breadcrumbs.merge(base, models, method=method.name)
    alpha = found(base, models, method=method.name)
    expected = breadcrumbs.merge(base, models, method=method.name, alpha=alpha)
    assert all(np.array_equal(merged[name], expected[name]) for name in base)


@pytest.mark.parametrize("method", ["tsv_m", "lines", "average", "cabs"])
def test_methods_whose_alpha_means_something_else_refuse_it(method: str) -> None:
    base, models = family(2)
    with pytest.raises(RecipeError, match="alpha"):
        breadcrumbs.merge(base, models, method=method, alpha="auto")


def test_progress_counts_what_is_read_to_find_it(tmp_path: Path) -> None:
    base, models = family(3)
    paths = []
    for number, state in enumerate((base, *models)):
        paths.append(str(tmp_path / f"{number}.safetensors"))
        save_file(state, paths[-1])
    for alpha, passes in ((1.0, 0), ("auto", 1)):
        asked = recipe.Recipe(
            paths[0], tuple(recipe.Model(path) for path in paths[1:]), parameters={"alpha": alpha}
        )
        told: list[int] = []
        with opening.opened(asked) as plan:
            assert bool(plan.bytes_measured) == passes
            total = plan.bytes_read + plan.bytes_measured
            files.to_files(plan, tmp_path / f"out{alpha}", threads=1, progress=told.append)
        assert sum(told) == total


def packed(folder: Path, base: State, models: list[State], **how: Any) -> list[str]:
    save_file(base, folder / "base.safetensors")
    paths = []
    for number, model in enumerate(models):
        paths.append(str(folder / f"{how['transform']}{number}.safetensors"))
        tasks.pack(base, model, paths[-1], **how)
    return paths


def test_whole_task_files_serve_as_models_do(tmp_path: Path) -> None:
    base, models = family(2)
    whole = packed(tmp_path, base, models, transform="none")
    merged = breadcrumbs.merge(tmp_path / "base.safetensors", whole, alpha="auto")
    expected = breadcrumbs.merge(base, models, alpha="auto")
    assert all(np.array_equal(merged[name], expected[name]) for name in base)


@pytest.mark.parametrize(
    "how",
    [{"beta": 0.8, "gamma": 0.98}, {"beta": 0.0}, {"transform": "dare", "p": 0.7}],
    ids=str,
)
def test_what_was_cut_when_packed_is_made_up_for(how: dict[str, Any], tmp_path: Path) -> None:
    how = {"transform": "breadcrumbs", **how}
    base, models = family(3)
    cut = packed(tmp_path, base, models, **how)
    for path, model in zip(cut, models, strict=True):
        with tasks.TaskFile.open(path) as task:
            for name in ("a", "b"):
                tau = (model[name].astype(np.float64) - base[name]).ravel()
                kept = np.zeros(tau.size)
                at = task.kept(name, 0).positions
                kept[at] = tau[at]
                share = kept @ kept / (tau @ tau)
                assert task.tensors[name].share == pytest.approx(share, rel=1e-3)
    names = [f"{how['transform']}{number}" for number in range(3)]
    method = {"breadcrumbs": "breadcrumbs", "dare": "dare_linear"}[how.pop("transform")]
    output = tmp_path / "merged"
    breadcrumbs.merge(tmp_path / "base.safetensors", cut, output=output, method=method)
    alpha = recipe.load(output / "breadcrumbs.yaml").parameters["alpha"]
    whole = found(base, models, method=method, names=names, **how)
    near = 0.15 if method == "dare_linear" else 0.05  # few entries are drawn, and others
    assert alpha == pytest.approx(whole, rel=near)


def test_tensors_that_lost_nearly_all_when_cut_count_as_what_they_were(tmp_path: Path) -> None:
    base, models = family(3)
    rng = np.random.default_rng(5)
    for model in models:  # of b nothing is left but noise, of a most
        sizes = np.where(rng.permutation(700) < 30, 1, 1e-4)
        model["b"] = base["b"] + (sizes * rng.standard_normal(700)).astype(np.float32)
    how: dict[str, Any] = {"beta": 0.2, "gamma": 0.95}
    cut = packed(tmp_path, base, models, transform="breadcrumbs", **how)
    with tasks.TaskFile.open(cut[0]) as task:
        assert task.tensors["b"].share < 1e-6 and task.tensors["a"].share > 0.6
    breadcrumbs.merge(tmp_path / "base.safetensors", cut, output=tmp_path / "merged")
    alpha = recipe.load(tmp_path / "merged" / "breadcrumbs.yaml").parameters["alpha"]
    assert alpha == pytest.approx(found(base, models, **how), rel=0.1)
