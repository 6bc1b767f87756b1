"""Finishes after any aggregate, transforms of matrices before any: the slow references' results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from families import SHAPES, close, family, merge, save, taus_of
from published_rows import NAMES
from reference import DTYPES, is_weight
from references import recent

import breadcrumbs
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods.registry import METHODS, get
from breadcrumbs.plan import Sizes

SEVERAL = {**SHAPES, "mlp.experts.up": (3, 5, 7), "lm_head.weight": (11, 6)}

#: Of a finish, what it makes of a matrix and the task vectors; by its settings.
FINISHES: dict[str, Callable[..., np.ndarray]] = {
    "svc": lambda step, taus, svc_least=None: recent.svc(step, taus, least=svc_least),
    "boost": lambda step, taus, boost_share=0.01: recent.boost(step, share=boost_share),
}
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "svc": [{}, {"svc_least": 0.7}],
    "boost": [{}, {"boost_share": 0.6}],
}
#: Methods of every kind, with settings for small tensors.
METHODS_OF_ALL_KINDS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {"alpha": 0.7},
    "average": {},
    "magnitude": {"density": 0.4, "alpha": 0.7},
    "dare_linear": {"p": 0.3, "alpha": 0.7},
    "della": {"alpha": 0.7},
    "ties": {"density": 0.6, "granularity": "tensor"},
    "tvq": {},
    "pcb": {},
    "model_stock": {"ratio": "free"},
    "tsv_m": {"alpha": 0.5},
    "cabs": {"n": 2, "m": 8},
}


def rows(name: str, array: np.ndarray, finish: str) -> list[tuple[Any, ...]]:
    """Return where what a finish sees as matrices lies, if it is in rows or not."""
    return matrices(name, array) or ([()] if finish == "svc" else [])


def matrices(name: str, array: np.ndarray) -> list[tuple[Any, ...]]:
    """Return where the matrices of a tensor lie."""
    if name == "lm_head.weight":
        return []
    if name == "mlp.experts.up":
        return [(i,) for i in range(len(array))]
    return [()] if array.ndim == 2 else []


@pytest.mark.parametrize("finish", FINISHES)
@pytest.mark.parametrize("method", METHODS_OF_ALL_KINDS)
def test_a_finish_is_the_references_after_any_method(method: str, finish: str) -> None:
    base, *models = family(1, "float64", 3, shapes=SEVERAL)
    weights = [1.0, 1.0, 1.0] if method == "model_stock" else [1.0, 0.5, 2.0]
    given: dict[str, Any] = dict(names=NAMES, weights=weights, **METHODS_OF_ALL_KINDS[method])
    plain = breadcrumbs.merge(base, models, method=method, **given)
    for settings in SETTINGS[finish]:
        found = breadcrumbs.merge(base, models, method=f"{method}+{finish}", **given, **settings)
        expected = dict(plain)
        for name in (name for name in base if is_weight(base[name])):
            expected[name] = plain[name].copy()
            taus = taus_of(base[name], [m[name] for m in models])
            # alpha comes after: what the finish sees is the step without it.
            alpha = get(method).complete(METHODS_OF_ALL_KINDS[method]).get("alpha", 1.0)
            for at in rows(name, base[name], finish):
                step = (plain[name] - base[name])[at] / alpha
                mine = [w * tau[at] for w, tau in zip(weights, taus, strict=True)]
                shape = step.shape if matrices(name, base[name]) else (1, step.size)
                mine = [tau.reshape(shape) for tau in mine]
                made = FINISHES[finish](step.reshape(shape), mine, **settings)
                expected[name][at] = base[name][at] + alpha * made.reshape(step.shape)
        close(found, expected, 1e-9)
        assert any((found[name] != plain[name]).any() for name in base)


def test_svc_hardly_asks_how_long_the_step_was() -> None:
    base, *models = family(2, "float64", 3)
    one = breadcrumbs.merge(base, models, method="task_arithmetic+svc", alpha=1, svc_least=1e-9)
    other = breadcrumbs.merge(base, models, method="tvq+svc", bits=16, alpha=1, svc_least=1e-9)
    close(one, other, 1e-2)
    alone = breadcrumbs.merge(base, models[:1], method="task_arithmetic+svc", alpha=1)
    close(alone, models[0], 1e-12)


@pytest.mark.parametrize("method", ["task_arithmetic+svc", "elect+boost", "low_rank+sum+svc"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_orders_chunks_threads_and_files_change_no_bit(method, dtype, tmp_path) -> None:
    base, *models = family(4, dtype, 3, "ties", shapes=SEVERAL)
    name = f"none+{method}" if method.startswith("elect") else method
    given: dict[str, Any] = dict(method=name, alpha=0.7)
    expected = breadcrumbs.merge(base, models, kernel="numpy", threads=1, names=NAMES, **given)
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for path, arrays in zip(paths, (base, *models), strict=True):
        save(path, arrays)
    small = Sizes(chunk=64, arena=128 * 16)
    for found in (
        merge(base, models, threads=3, names=NAMES, sizes=small, **given),
        merge(paths[0], paths[1:], kernel="native", threads=2, names=NAMES, sizes=small, **given),
        merge(base, models[::-1], names=NAMES[::-1], **given),
    ):
        for key, values in expected.items():
            assert found[key].tobytes() == values.tobytes(), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_models_that_are_the_base_give_it_bit_for_bit(dtype) -> None:
    zeros = np.array([[0.0, -0.0], [1.0, 2.0]]).astype(DTYPES[dtype])
    base = {**family(2, dtype, 0, shapes=SEVERAL)[0], "zeros": zeros}
    models = [{name: values.copy() for name, values in base.items()}] * 2
    for method in ("task_arithmetic+svc", "ties+boost", "low_rank+sum"):
        found = breadcrumbs.merge(base, models, method=method)
        assert all(found[name].tobytes() == base[name].tobytes() for name in base), method


@pytest.mark.parametrize("settings", [{}, {"energy": 0.5}, {"rank": 2}], ids=str)
def test_low_rank_is_the_references_before_any_aggregate(settings: dict[str, Any]) -> None:
    base, *models = family(3, "float64", 3, shapes=SEVERAL)
    cut: list[dict[str, np.ndarray]] = []
    for model in models:
        cut.append({name: values.copy() for name, values in model.items()})
        for name in (name for name in base if is_weight(base[name])):
            for at in matrices(name, base[name]):
                tau = model[name][at] - base[name][at]
                cut[-1][name][at] = base[name][at] + recent.low_rank(tau, **settings)
    tried: list[tuple[str, dict[str, Any]]] = [("sum", {"alpha": 0.7}), ("elect", {"alpha": 1})]
    for aggregate, more in (*tried, ("tsv_m", {})):
        found = breadcrumbs.merge(base, models, method=f"low_rank+{aggregate}", **settings, **more)
        expected = breadcrumbs.merge(base, cut, method=f"none+{aggregate}", **more)
        close(found, expected, 1e-9)


def test_a_recipe_carries_a_finish_and_alpha_is_found_for_it(tmp_path) -> None:
    base, *models = family(5, "float32", 3)
    paths = [str(tmp_path / f"{i}.safetensors") for i in range(4)]
    for path, arrays in zip(paths, (base, *models), strict=True):
        save(path, arrays)  # pyright: ignore[reportArgumentType]
    out = tmp_path / "out"
    report = breadcrumbs.merge(
        paths[0], paths[1:], method="task_arithmetic+svc", alpha="auto", output=out
    )
    text = (out / "breadcrumbs.yaml").read_text()
    assert "method: task_arithmetic+svc" in text and report.alpha is not None
    again = breadcrumbs.merge(base, models, method="task_arithmetic+svc", alpha=report.alpha)
    close(dict(breadcrumbs.open(out)), again, 1e-6)


@pytest.mark.parametrize(
    "method, message",
    [
        ("ties+svc+boost", "svc is a finish, too"),
        ("ties+svx", "there is no finish 'svx'. Did you mean 'svc'"),
        ("svc", r"'svc' is a finish.*task_arithmetic\+svc"),
        ("low_rank", r"'low_rank' is a transform.*low_rank\+sum"),
        ("low_rank+tatr", "tatr looks at entries"),
        ("low_rank+sce", "sce looks at entries"),
    ],
)
def test_what_cannot_be_is_refused(method: str, message: str) -> None:
    base, *models = family(6, "float32", 2)
    with pytest.raises(RecipeError, match=message):
        breadcrumbs.merge(base, models, method=method)


def test_wrong_parameters_are_named() -> None:
    base, *models = family(6, "float32", 2)
    with pytest.raises(RecipeError, match=r"has no parameter 'svc_leest'.*svc_least"):
        breadcrumbs.merge(base, models, method="ties+svc", svc_leest=1)
    with pytest.raises(RecipeError, match="svc_least: 0 is not above 0"):
        breadcrumbs.merge(base, models, method="ties+svc", svc_least=0)
    with pytest.raises(RecipeError, match="rank and energy are two ways"):
        breadcrumbs.merge(base, models, method="low_rank+sum", rank=2, energy=0.5)
    with pytest.raises(RecipeError, match="neither compared nor packed"):
        breadcrumbs.compare(base, models, transform="low_rank")
    assert "svc_least" in get("tsv_m+svc").parameters and METHODS["tsv_m"].finish is None
