"""Aggregates that follow from inner products agree with the slow references and keep their laws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from references import classical

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import parameters
from breadcrumbs.methods.aggregates import Gram
from breadcrumbs.methods.published.karcher import KARCHER
from breadcrumbs.methods.published.model_stock import MODEL_STOCK
from breadcrumbs.methods.published.multislerp import MULTISLERP
from breadcrumbs.methods.published.nuslerp import NUSLERP
from breadcrumbs.methods.published.slerp import SLERP

#: Largest error, as a fraction of the length of the longest tensor.
TOLERANCE = 1e-14

#: Sizes that are powers of 4, so that unit vectors of +-1 are exact and opposite ones are opposite.
SHAPES = ((), (1,), (16,), (8, 8), (4, 1, 16))

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...], int], list[np.ndarray]]] = {
    "far": lambda rng, shape, count: list(draw(rng, (1 + count, *shape))),
    "0.1": lambda rng, shape, count: near(rng, shape, count, 1e-1),
    "1e-3": lambda rng, shape, count: near(rng, shape, count, 1e-3),
    "1e-4": lambda rng, shape, count: near(rng, shape, count, 1e-4),
    "1e-6": lambda rng, shape, count: near(rng, shape, count, 1e-6),
    "equal": lambda rng, shape, count: [draw(rng, shape)] + [draw(rng, shape)] * count,
    "unchanged": lambda rng, shape, count: [draw(rng, shape)] * (1 + count),
    "one changed": lambda rng, shape, count: [np.ones(shape)] * count + [draw(rng, shape)],
    "zero base": lambda rng, shape, count: ([np.zeros(shape), *draw(rng, (count, *shape))]),
    "zero model": lambda rng, shape, count: ([*draw(rng, (count, *shape)), np.zeros(shape)]),
    "zeros": lambda rng, shape, count: [np.zeros(shape)] * (1 + count),
    "zero models": lambda rng, shape, count: [draw(rng, shape)] + [np.zeros(shape)] * count,
    "opposite models": lambda rng, shape, count: opposite(rng, shape, count, 0),
    "opposite tasks": lambda rng, shape, count: opposite(rng, shape, count, 1),
    "1e20": lambda rng, shape, count: list(1e20 * draw(rng, (1 + count, *shape))),
    "1e-20": lambda rng, shape, count: list(1e-20 * draw(rng, (1 + count, *shape))),
}


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return entries of sizes .5 to 1.5, so that no model is much shorter than its base."""
    return rng.uniform(0.5, 1.5, shape) * np.where(rng.random(shape) < 0.5, 1.0, -1.0)


def near(
    rng: np.random.Generator, shape: tuple[int, ...], count: int, size: float
) -> list[np.ndarray]:
    base = draw(rng, shape)
    return [base] + [base + size * draw(rng, shape) for _ in range(count)]


def opposite(
    rng: np.random.Generator, shape: tuple[int, ...], count: int, base: float
) -> list[np.ndarray]:
    signs = np.where(rng.random(shape) < 0.5, 1.0, -1.0)
    return [base - signs] + [base * signs + signs * (-1) ** t for t in range(count)]


def tensors(kind: str, shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    seed = [len(shape), math.prod(shape), count, list(KINDS).index(kind)]
    return KINDS[kind](np.random.default_rng(seed), shape, count)


def gram_of(base: np.ndarray, models: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.array([base, *(model - base for model in models)]).reshape(1 + len(models), -1)
    return rows @ rows.T


def coefficients(
    aggregate: Gram, gram: np.ndarray, weights: Sequence[float] | None = None, **given: Any
) -> np.ndarray:
    values = parameters.defaults(aggregate.parameters) | parameters.parse(
        "here", aggregate.parameters, given
    )
    weights = [1.0] * (len(gram) - 1) if weights is None else weights
    return aggregate.coefficients(gram, weights, values)


def merge(
    aggregate: Gram,
    base: np.ndarray,
    models: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    **given: Any,
) -> np.ndarray:
    c = coefficients(aggregate, gram_of(base, models), weights, **given)
    assert c.shape == (1 + len(models),)
    assert c.dtype == np.float64
    taus = [c[t] * (model - base) for t, model in enumerate(models, 1)]
    return base + c[0] * base + np.sum(taus, axis=0)


def check(found: np.ndarray, expected: np.ndarray, all_tensors: Sequence[np.ndarray]) -> None:
    longest = max(float(np.linalg.norm(tensor)) for tensor in all_tensors)
    assert np.linalg.norm(found - expected) <= TOLERANCE * longest


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slerp(kind: str, shape: tuple[int, ...]):
    base, model = tensors(kind, shape, 1)
    check(merge(SLERP, base, [model]), classical.slerp(base, [model]), [base, model])
    for t in ("0", "0.3", "0.999", "1"):
        expected = classical.slerp(base, [model], t=float(t))
        check(merge(SLERP, base, [model], t=t), expected, [base, model])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nuslerp(kind: str, shape: tuple[int, ...]):
    base, *models = tensors(kind, shape, 2)
    for weights in ([1, 1], [1, 3], [0, 1], [2.5, 0], [1, -1], [0, 0]):
        expected = classical.nuslerp(base, models, weights=weights)
        check(merge(NUSLERP, base, models, weights), expected, [base, *models])
        expected = classical.nuslerp(None, models, weights=weights)
        check(merge(NUSLERP, base, models, weights, of="models"), expected, [base, *models])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_multislerp(kind: str, shape: tuple[int, ...], count: int):
    base, *models = tensors(kind, shape, count)
    for weights in ([1.0] * count, [0.5 + t for t in range(count)], [2.0, *[-0.1] * (count - 1)]):
        for normalize, of in itertools.product(("weights", "none"), ("task_vectors", "models")):
            expected = classical.multislerp(
                base if of == "task_vectors" else None,
                models,
                weights=weights,
                normalize=normalize == "weights",
            )
            found = merge(MULTISLERP, base, models, weights, normalize=normalize, of=of)
            extent = max(1, sum(map(abs, weights)))
            check(found, expected, [extent * tensor for tensor in (base, *models)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_karcher(kind: str, shape: tuple[int, ...], count: int):
    base, *models = tensors(kind, shape, count)
    scale = 1e20 if kind == "1e-20" else 1.0  # the reference has no directions below tol
    wide = [scale * tensor for tensor in (base, *models)]
    settings: list[dict[str, Any]]
    settings = [{}, {"max_iter": 1}, {"max_iter": 0}, {"max_iter": 50, "tol": 1e-9}]
    for given in settings:
        expected = classical.karcher(None, wide[1:], **given)
        check(scale * merge(KARCHER, base, models, **given), expected, wide)
        expected = classical.karcher(wide[0], wide[1:], **given)
        found = merge(KARCHER, base, models, of="base_and_models", **given)
        check(scale * found, expected, wide)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [2, 3, 8])
def test_model_stock(kind: str, shape: tuple[int, ...], count: int):
    base, *models = tensors(kind, shape, count)
    expected = classical.model_stock(base, models)
    check(merge(MODEL_STOCK, base, models), expected, [base, *models])
    expected = classical.model_stock(base, models, clamp=False)
    check(merge(MODEL_STOCK, base, models, ratio="free"), expected, [base, *models, expected])
    # One that some products of lengths are below, and some above.
    lengths = [float(np.linalg.norm(np.subtract(m, base, dtype=np.float64))) for m in models]
    guard = float(np.median([x * y for x, y in itertools.combinations(lengths, 2)]))
    expected = classical.model_stock(base, models, clamp=False, guard=guard)
    found = merge(MODEL_STOCK, base, models, ratio="free", guard=guard)
    check(found, expected, [base, *models, expected])


#: Every reading of every aggregate, with a number of models that it takes.
READINGS = [
    (SLERP, 1, {}),
    (NUSLERP, 2, {}),
    (NUSLERP, 2, {"of": "models"}),
    (MULTISLERP, 3, {}),
    (MULTISLERP, 3, {"of": "models"}),
    (MULTISLERP, 3, {"normalize": "none"}),
    (KARCHER, 3, {}),
    (KARCHER, 3, {"of": "base_and_models"}),
    (MODEL_STOCK, 3, {}),
    (MODEL_STOCK, 3, {"ratio": "free"}),
]


@pytest.mark.parametrize(("aggregate", "count", "given"), READINGS)
def test_unchanged_models_add_nothing_to_the_base(aggregate: Gram, count: int, given: dict):
    rng = np.random.default_rng(0)
    for _ in range(50):  # 1 / 3 and the like round up and down
        base = draw(rng, (7, 3))
        c = coefficients(aggregate, gram_of(base, [base] * count), **given)
        assert c[0] == 0
        assert np.isfinite(c).all()


@pytest.mark.parametrize(("aggregate", "count", "given"), READINGS)
@pytest.mark.parametrize("kind", ["far", "1e-4", "opposite tasks"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_coefficients_do_not_depend_on_the_scale(
    aggregate: Gram, count: int, given: dict, kind: str, scale: float
):
    base, *models = tensors(kind, (8, 8), count)
    gram = gram_of(base, models)
    expected = coefficients(aggregate, gram, **given)
    assert coefficients(aggregate, scale**2 * gram, **given) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize(("aggregate", "count", "given"), [r for r in READINGS if r[1] > 1])
@pytest.mark.parametrize("kind", ["far", "1e-3", "one changed", "zero base"])
def test_the_order_of_models_is_irrelevant(aggregate: Gram, count: int, given: dict, kind: str):
    base, *models = tensors(kind, (8, 8), count)
    weights = [1.0] * count
    if aggregate in (NUSLERP, MULTISLERP):
        weights = [1.0, 2.0, 5.0][:count]
    expected = merge(aggregate, base, models, weights, **given)
    for order in itertools.permutations(range(count)):
        others, shares = [models[t] for t in order], [weights[t] for t in order]
        found = merge(aggregate, base, others, shares, **given)
        check(found, expected, [base, *models, expected])


def test_a_model_that_a_weight_of_0_left_out_of_an_arc():
    assert coefficients(SLERP, np.eye(1)).tolist() == [0]
    assert coefficients(NUSLERP, np.eye(1)).tolist() == [0]
    assert coefficients(NUSLERP, np.eye(2), [3]).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_an_arc_are_the_models(kind: str):
    base, *models = tensors(kind, (8, 8), 2)
    gram = gram_of(base, models)
    assert coefficients(SLERP, gram[:2, :2], t="0").tolist() == [0, 0]
    assert coefficients(SLERP, gram[:2, :2], t="1").tolist() == [0, 1]
    for of in ("task_vectors", "models"):
        assert coefficients(NUSLERP, gram, [3, 0], of=of).tolist() == [0, 1, 0]
        assert coefficients(NUSLERP, gram, [0, 3], of=of).tolist() == [0, 0, 1]


@pytest.mark.parametrize("kind", ["far", "1e-6", "equal"])
def test_one_model_or_equal_ones_give_that_model(kind: str):
    base, model = tensors(kind, (8, 8), 1)
    check(merge(KARCHER, base, [model]), model, [model])
    for of in ("task_vectors", "models"):
        check(merge(MULTISLERP, base, [model], [2.0], of=of), model, [model])
        check(merge(NUSLERP, base, [model, model], [1, 2], of=of), model, [model])
        check(merge(MULTISLERP, base, [model] * 5, [1, 2, 3, 4, 5], of=of), model, [model])
    check(merge(KARCHER, base, [model] * 5), model, [model])
    check(merge(MODEL_STOCK, base, [model] * 5), model, [model])


def test_close_models_lose_nothing_of_their_task_vectors():
    """Errors against the length of the task vectors, of models that are close to the base."""
    for kind, size in (("1e-3", 1e-3), ("1e-4", 1e-4), ("1e-6", 1e-6)):
        base, *models = tensors(kind, (64, 64), 3)
        for aggregate, expected, of in (
            (MULTISLERP, classical.multislerp(None, models), "models"),
            (KARCHER, classical.karcher(None, models, tol=1e-9), "models"),
            (KARCHER, classical.karcher(base, models, tol=1e-9), "base_and_models"),
        ):
            given: dict[str, Any] = {"tol": 1e-9} if aggregate is KARCHER else {}
            found = merge(aggregate, base, models, of=of, **given)
            tau = np.linalg.norm(models[0] - base)
            assert np.linalg.norm(found - expected) <= 1e-15 / size * tau


def test_spheres_keep_lengths():
    base, *models = tensors("far", (8, 8), 3)
    base, *models = (tensor / np.linalg.norm(tensor) for tensor in (base, *models))
    merged = [
        merge(SLERP, base, models[:1], t="0.2"),
        merge(NUSLERP, base, models[:2], [1, 3], of="models"),
        merge(MULTISLERP, base, models, [1, 2, 3], of="models"),
        merge(KARCHER, base, models),
    ]
    assert [np.linalg.norm(tensor) for tensor in merged] == pytest.approx([1] * 4)


def test_opposite_task_vectors_of_any_length_lie_on_a_line():
    base, model = tensors("far", (5, 7), 1)
    other = base - 3 * (model - base)
    merged = merge(NUSLERP, base, [model, other])
    check(merged, base - (model - base), [base, model, other])
    merged = merge(MULTISLERP, base, [model, other])
    check(merged, base - (model - base), [base, model, other])


def test_model_stock_stays_at_the_base_where_task_vectors_disagree():
    base = np.zeros(2)
    obtuse = [np.array([1.0, 0]), np.array([-0.5, 1.0])]
    assert merge(MODEL_STOCK, base, obtuse).tolist() == [0, 0]
    assert merge(MODEL_STOCK, base, obtuse, ratio="free").tolist() != [0, 0]


@pytest.mark.parametrize(
    ("aggregate", "weights", "given", "message"),
    [
        (SLERP, [0.5], {}, "slerp: a model has the weight 0.5.*Give t"),
        (KARCHER, [1, 2], {}, "karcher: a model has the weight 2.*alike"),
        (MODEL_STOCK, [0, 1], {}, "model_stock: a model has the weight 0.*alike"),
        (MULTISLERP, [1, -1], {}, "the weights add up to 0.*normalize: none"),
        (KARCHER, [1, 1], {"max_iter": -1}, "max_iter"),
        (KARCHER, [1, 1], {"max_iter": 1.5}, "max_iter"),
        (SLERP, [1], {"t": 1.5}, "t: 1.5 is not possible"),
        (NUSLERP, [1, 1], {"of": "weights"}, "task_vectors, models"),
    ],
)
def test_errors_say_what_to_do(
    aggregate: Gram, weights: list[float], given: dict[str, Any], message: str
):
    with pytest.raises(RecipeError, match=message):
        coefficients(aggregate, np.eye(1 + len(weights)), weights, **given)
