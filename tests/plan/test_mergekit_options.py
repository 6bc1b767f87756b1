"""The options that say what mergekit does, against loops over Python numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from families import merge

import breadcrumbs
from breadcrumbs.errors import RecipeError
from breadcrumbs.plan import Sizes

RNG = np.random.default_rng(3)
SHAPES = {"a": (9, 11), "b": (7,), "c": (3, 4, 5), "s": ()}
BASE = {k: np.asarray(RNG.standard_normal(shape), "float32") for k, shape in SHAPES.items()}
MODELS = [
    {k: np.asarray(v + RNG.standard_normal(v.shape) / 8, "float32") for k, v in BASE.items()}
    for _ in range(3)
]


def taus(name: str) -> list[list[float]]:
    base = BASE[name].astype(np.float64).reshape(-1)
    return [(m[name].astype(np.float64).reshape(-1) - base).tolist() for m in MODELS]


def trimmed(tau: list[float], density: float) -> list[float]:
    """Return the int(density n) largest, at least 1 if density is above 0."""
    order = sorted(range(len(tau)), key=lambda i: (abs(np.float32(tau[i])), i))
    number = max(1, int(density * len(tau))) if density > 0 else 0
    kept = set(order[len(tau) - number :])
    return [x if i in kept else 0.0 for i, x in enumerate(tau)]


def without_tails(tau: list[float], density: float, gamma: float) -> list[float]:
    if density >= 1:
        return tau
    order = sorted(range(len(tau)), key=lambda i: (abs(np.float32(tau[i])), i))
    number = int(density * len(tau))
    first = max(0, len(tau) - number - int(gamma * len(tau)))
    kept = set(order[first : first + number])
    return [x if i in kept else 0.0 for i, x in enumerate(tau)]


def rescaled(before: list[float], after: list[float]) -> list[float]:
    norms = [math.fsum(abs(x) for x in values) for values in (before, after)]
    ratio = norms[0] / norms[1] if min(norms) >= 1e-7 else 1.0
    return [ratio * x for x in after]


def summed(name: str, steps: list[list[float]]) -> np.ndarray:
    total = [math.fsum(column) for column in zip(*steps, strict=True)]
    return BASE[name].astype(np.float64) + np.array(total).reshape(BASE[name].shape)


def check(found, steps) -> None:
    for name in BASE:
        np.testing.assert_allclose(found[name], summed(name, steps(name)), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("density", [0.29, 0.01, 0, 1, 0.3])
@pytest.mark.parametrize("rescale", ["none", "l1"])
def test_the_largest_as_mergekit_counts_them(density, rescale):
    assert int(0.29 * 100) == 28
    given = dict(density=density, counts="mergekit", rescale=rescale, dtype="float64", alpha=1)
    found = breadcrumbs.merge(BASE, MODELS, method="magnitude", **given)

    def steps(name):
        cut = [(tau, trimmed(tau, density)) for tau in taus(name)]
        return [rescaled(*pair) if rescale == "l1" else pair[1] for pair in cut]

    check(found, steps)


@pytest.mark.parametrize("density, gamma", [(0.3, 0.1), (0.29, 0.01), (0.9, 0.3), (1, 0.2)])
@pytest.mark.parametrize("rescale", ["none", "l1"])
def test_breadcrumbs_as_mergekit_counts_them(density, gamma, rescale):
    found = breadcrumbs.merge(
        BASE,
        MODELS,
        method="breadcrumbs",
        density=density,
        outliers=gamma,
        counts="mergekit",
        rescale=rescale,
        dtype="float64",
        alpha=1,
    )

    def steps(name):
        cut = [(tau, without_tails(tau, density, gamma)) for tau in taus(name)]
        return [rescaled(*pair) if rescale == "l1" else pair[1] for pair in cut]

    check(found, steps)


@pytest.mark.parametrize("given", [{}, {"density": 0.3}, {"beta": 0.5, "gamma": 0.9}])
def test_mergekits_counts_are_of_density_with_outliers(given):
    with pytest.raises(RecipeError, match=r"density with outliers|belong together"):
        breadcrumbs.merge(BASE, MODELS, method="breadcrumbs", counts="mergekit", **given)


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
@pytest.mark.parametrize("rescale", ["none", "l1"])
def test_what_is_drawn_is_rescaled_to_its_norm_or_not(method, rescale):
    given = {"p": 0.4} if method == "dare_linear" else {"density": 0.6, "epsilon": 0.2}
    for model in MODELS:
        found = breadcrumbs.merge(
            BASE, [model], method=method, rescale=rescale, dtype="float64", alpha=1, **given
        )
        kept = 0
        for name, base in BASE.items():
            tau = model[name].astype(np.float64) - base
            step = found[name] - base.astype(np.float64)
            mask = step != 0
            kept += np.count_nonzero(mask)
            ratio = (
                np.abs(tau).sum() / np.abs(tau[mask]).sum() if rescale == "l1" and mask.any() else 1
            )
            np.testing.assert_allclose(step[mask], ratio * tau[mask], rtol=1e-9)
        assert 0.4 < kept / sum(base.size for base in BASE.values()) < 0.8


@pytest.mark.parametrize("method", ["ties", "dare_ties", "della", "breadcrumbs_ties"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rescaling_gives_the_same_bits_however_it_runs(method, dtype):
    import ml_dtypes

    to = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    base, *models = ({k: v.astype(to) for k, v in m.items()} for m in (BASE, *MODELS))
    given = dict(
        method=method, rescale="l1", alpha=0.7, overrides=[{"tensors": "b", "rescale": "none"}]
    )
    wanted = breadcrumbs.merge(base, models, kernel="numpy", threads=1, **given)
    plain = breadcrumbs.merge(base, models, **{**given, "rescale": "none"})
    assert plain["a"].tobytes() != wanted["a"].tobytes()
    assert plain["b"].tobytes() == wanted["b"].tobytes()
    given["sizes"] = Sizes(chunk=16, arena=64 * 16)
    for kernel, threads in (("numpy", 3), ("native", 2)):
        found = merge(base, models, kernel=kernel, threads=threads, **given)
        assert all(found[k].tobytes() == wanted[k].tobytes() for k in base)


def test_weights_of_both_signs_share_as_they_are():
    weights = [1.0, -1.0, 0.5]
    given = dict(method="none+elect", weights=weights, merge="mean", dtype="float64")
    found = breadcrumbs.merge(BASE, MODELS, shares="signed", **given)
    other = breadcrumbs.merge(BASE, MODELS, **given)
    assert any((found[name] != other[name]).any() for name in BASE)
    for name in BASE:
        steps = []
        for column in zip(*taus(name), strict=True):
            terms = [w * x for w, x in zip(weights, column, strict=True)]
            sign = 1 if math.fsum(terms) >= 0 else -1
            agree = [t for t, x in enumerate(terms) if x * sign > 0]
            share = math.fsum(weights[t] for t in agree) or 1.0
            steps.append(math.fsum(terms[t] for t in agree) / share)
        wanted = BASE[name].astype(np.float64) + np.array(steps).reshape(BASE[name].shape)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("base_weight, normalize", [(0.5, "weights"), (0.5, "none"), (2, "none")])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_base_is_one_of_the_models_of_an_average(base_weight, normalize, number):
    weights = [1.0, -0.5, 2.0][:number]
    found = breadcrumbs.merge(
        BASE,
        MODELS[:number],
        method="average",
        weights=weights,
        base_weight=base_weight,
        normalize=normalize,
        dtype="float64",
    )
    total = sum(weights) + base_weight if normalize == "weights" else 1
    for name, base in BASE.items():
        terms = [w * m[name].astype(np.float64) for w, m in zip(weights, MODELS, strict=False)]
        wanted = (base_weight * base.astype(np.float64) + sum(terms)) / total
        np.testing.assert_allclose(found[name], wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("density", [1, 0.29])
def test_energies_below_the_guard_count_alike(density):
    given = dict(method="sce", density=density, counts="mergekit", dtype="float64")
    small = [
        {k: np.asarray(BASE[k] + (v - BASE[k]) / 2**10, "float32") for k, v in m.items()}
        for m in MODELS
    ]
    found = breadcrumbs.merge(BASE, small, guard=1e-3, **given)
    other = breadcrumbs.merge(BASE, small, **given)
    assert any((found[name] != other[name]).any() for name in BASE)
    for name, base in BASE.items():
        wide = base.astype(np.float64).reshape(-1)
        rows = np.array([m[name].astype(np.float64).reshape(-1) - wide for m in small])
        if density < 1:
            order = np.argsort(rows.var(axis=0), kind="stable")
            rows[:, order[: rows.shape[1] - int(density * rows.shape[1])]] = 0
        steps = []
        for column in rows.T.tolist():
            sign = 1 if math.fsum(column) >= 0 else -1
            agree = [x for x in column if x * sign > 0]
            steps.append(math.fsum(agree) / max(len(agree), 1))
        np.testing.assert_allclose(
            found[name].reshape(-1), wide + steps, rtol=1e-12, atol=1e-13, err_msg=name
        )
