"""The aggregates that need a whole tensor are the references', and do what their papers promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from golden_models import base_and_models, conditioning, load
from references import classical, spectral
from references.common import wide

from breadcrumbs.methods import parameters
from breadcrumbs.methods.aggregates import Elementwise, Entries, Extent, Whole, singular
from breadcrumbs.methods.published import iso, star
from breadcrumbs.methods.published.cabs import CABS
from breadcrumbs.methods.published.iso import ISO_C, ISO_CTS
from breadcrumbs.methods.published.polar import POLAR
from breadcrumbs.methods.published.sce import SCE
from breadcrumbs.methods.published.star import STAR
from breadcrumbs.methods.published.tsv_m import TSV_M
from breadcrumbs.methods.published.wudi import WUDI

SPECTRAL: dict[str, tuple[Whole, Callable[..., np.ndarray]]] = {
    "tsv_m": (TSV_M, spectral.tsv_m),
    "iso_c": (ISO_C, spectral.iso_c),
    "iso_cts": (ISO_CTS, spectral.iso_cts),
    "polar": (POLAR, spectral.polar_step),
    "star": (STAR, spectral.star),
}
WHOLE = SPECTRAL | {
    "wudi": (WUDI, spectral.wudi),
    "sce": (SCE, classical.sce),
    "cabs": (CABS, spectral.cabs),
}
#: Parameters that are no defaults.
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("iso_cts", {"common": Decimal("0.3")}),
    ("iso_cts", {"common": Decimal(0)}),
    ("iso_cts", {"common": Decimal(1)}),
    ("polar", {"length": 0.5}),
    ("star", {"eta": Decimal("0.9")}),
    ("star", {"eta": Decimal(0)}),
    ("star", {"eta": Decimal(1)}),
    ("wudi", {"solver": "adam", "steps": 7, "rate": 0.01}),
    ("wudi", {"solver": "adam", "steps": 0}),
    ("wudi", {"solver": "ridge"}),
    ("wudi", {"normalize": "none", "time": 5}),
    ("sce", {"density": Decimal("0.29")}),
    ("sce", {"density": Decimal(0)}),
    ("cabs", {"n": 2, "m": 19}),
    ("cabs", {"n": 1, "m": 9}),
    ("cabs", {"n": 0, "m": 3}),
    ("cabs", {"m": 10}),
]
CASES = [(name, {}) for name in WHOLE] + OTHERS
SHAPES = [
    (),
    (0,),
    (7,),
    (1, 1),
    (1, 6),
    (6, 1),
    (5, 12),
    (12, 5),
    (8, 8),
    (2, 3, 4),
    (0, 3),
    (3, 0),
]
KINDS = ("usual", "equal", "zeros", "some zeros", "rank one", "opposite", "tiny", "huge")


def family(kind: str, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return task vectors (count, *shape)."""
    rng = np.random.default_rng([count, *shape, KINDS.index(kind)])
    taus = rng.standard_normal((count, *shape))
    if kind == "equal":
        taus[:] = taus[0]
    elif kind == "zeros":
        taus[:] = 0
    elif kind == "some zeros":
        taus[::2] = 0
    elif kind == "rank one" and len(shape) == 2:
        # Whole numbers, so that it is of rank one exactly.
        left, right = rng.integers(1, 9, (count, shape[0], 1)), rng.integers(1, 9, (1, shape[1]))
        taus[:] = left * right * rng.choice([-1, 1], (count, 1, shape[1]))
    elif kind == "opposite":
        taus[:] = taus[0]
        taus[1::2] *= -1
    return taus * {"tiny": 1e-30, "huge": 1e20}.get(kind, 1.0)


def merged(
    aggregate: Whole | Elementwise,
    base: np.ndarray,
    taus: np.ndarray,
    weights: Sequence[float] | None = None,
    **given: Any,
) -> np.ndarray:
    """Return base + alpha * the step, for task vectors that stay as they are."""
    values = parameters.defaults(aggregate.parameters) | given
    shares = [1.0] * len(taus) if weights is None else weights
    alpha = values.get("alpha", 1.0)
    values["alpha"] = 1.0 if alpha == "auto" else alpha
    if isinstance(aggregate, Elementwise):
        step = looked_through(aggregate, np.array(taus, np.float64), shares, values)
    else:
        values |= aggregate.check(given)
        step = aggregate.combine(wide(base), np.array(taus, np.float64), shares, values)
        step = step[0] if aggregate.counts else step
    assert step.shape == base.shape and step.dtype == np.float64
    return base + values["alpha"] * step


def looked_through(
    aggregate: Elementwise, taus: np.ndarray, weights: Sequence[float], values: dict[str, Any]
) -> np.ndarray:
    """Return the step of an aggregate that looks at each tensor first, a few entries at a time."""
    here = [t for t, weight in enumerate(weights) if weight]
    size = int(np.prod(taus.shape[1:]))
    flat, mine = taus.reshape(len(taus), size)[here], np.array(weights, np.float64)[here]

    def entries(start: int, n: int, known: Any = None) -> Entries:
        part = flat[:, start : start + n]
        given = {"who": here, "start": start, "narrow": False, "known": known}
        return Entries(part, np.ones(part.shape, bool), mine, **given)

    assert aggregate.prepare is not None
    asked, known = aggregate.prepare(Extent(size, len(here), few=6), values), None
    try:
        fold = next(asked)
        while True:
            found = fold.empty()
            for start in range(0, size, 5):
                n = min(5, size - start)
                if fold.at in (None, start):
                    part = entries(start, 1 if fold.some else n)
                    found = fold.join(found, fold.scan(part))
            fold = asked.send(found)
    except StopIteration as done:
        known = done.value
    steps = [aggregate.combine(entries(start, 7, known), values) for start in range(0, size, 7)]
    return np.concatenate([*steps, np.zeros(0)]).reshape(taus.shape[1:])


def tolerance(name: str, taus: np.ndarray, **given: Any) -> float:
    """Return how far rounding may take a result; a tenth of it was seen.

    What is not from singular values has no conditioning to speak of.
    """
    size = np.abs(taus).max(initial=0)
    closed = name == "wudi" and given.get("solver") != "adam"
    if not (name in SPECTRAL or closed) or taus.ndim != 3 or not taus.size:
        return 1e-14 * size
    return 1e-13 * size * max(taus.shape[1:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "given"), CASES, ids=[f"{n}-{g}" for n, g in CASES])
def test_an_aggregate_is_its_reference(name, given, shape, kind):
    aggregate, reference = WHOLE[name]
    readable = {k: float(v) if isinstance(v, Decimal) else v for k, v in given.items()}
    for count in (1, 2, 5, 9):
        taus, base = family(kind, shape, count), np.zeros(shape)
        found = merged(aggregate, base, taus, **given)
        expected = reference(base, list(taus), **readable)
        off = np.abs(found - expected).max(initial=0)
        bound = tolerance(name, taus, **given)
        if given.get("solver") == "adam" and kind in ("rank one", "tiny"):
            # Gradients of about 0 over 1e-8 and more: Adam makes steps of rounding.
            bound += 2 * given.get("steps", 300) * given.get("rate", 1e-5)
        assert off <= bound, count
        assert not np.any(found) or kind != "zeros"


@pytest.mark.parametrize("scale", [1.0, 0.25, 2.0**-40])
def test_equal_variances_of_other_numbers_are_equal(scale):
    # 0, 1, 4 and 0, 3, 4 have the variance 26/9; rounded on the way, one is larger.
    columns = np.array([[0, 3, 4], [0, 1, 4], [5, 8, 9], [1, 2, 5], [-4, 0, -1], [9, 5, 6]]).T
    for density in (0.17, 0.34, 0.5, 0.67, 0.84):
        found = merged(SCE, np.zeros(6), columns * scale, density=Decimal(str(density)))
        expected = classical.sce(np.zeros(6), list(columns * scale), density=density)
        np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("name", WHOLE)
def test_the_base_is_no_part_of_the_step(name):
    aggregate, reference = WHOLE[name]
    base = np.random.default_rng(0).integers(-50, 50, (6, 9)).astype(np.float64)
    taus = np.round(64 * family("usual", (6, 9), 3)) / 64  # so that base + tau - base is tau
    found = merged(aggregate, base, taus)
    assert found == pytest.approx(reference(base, [base + tau for tau in taus]), abs=1e-12)
    if "alpha" in aggregate.parameters:
        half = merged(aggregate, base, taus, alpha=0.5)
        assert half == pytest.approx((base + found) / 2, abs=1e-13)


@pytest.mark.parametrize("name", ["tsv_m-a1", "iso_c-a1", "iso_cts-a1"])
def test_an_aggregate_is_the_published_program(name):
    # The bounds are those of test_a_reference_is_the_published_program.
    base, models = base_and_models()
    for key, values in load(f"expect-{name}").items():
        if base[key].dtype != np.float32:
            continue
        taus = np.array([wide(m[key]) - wide(base[key]) for m in models])
        found = merged(WHOLE[name[:-3]][0], base[key], taus)
        eps = float(np.finfo(np.float32).eps)
        bound = 4 * eps * np.abs(base[key].astype(np.float64)).max(initial=1)
        if name == "tsv_m-a1" and values.ndim == 2:
            bound += conditioning(base[key], [m[key] for m in models])
        assert np.abs(found - values.astype(np.float64)).max(initial=0) <= bound, key


# --- weights, order, scale ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (7,), (5, 12), (12, 5)], ids=str)
@pytest.mark.parametrize(("name", "given"), CASES, ids=[f"{n}-{g}" for n, g in CASES])
def test_weights_multiply_and_a_weight_of_0_is_an_absent_model(name, given, shape):
    aggregate, _ = WHOLE[name]
    taus, base, weights = family("usual", shape, 4), np.zeros(shape), [0.5, 0.0, -2.0, 1.0]
    found = merged(aggregate, base, taus, weights, **given)
    times = taus[[0, 2, 3]] * np.reshape([0.5, -2.0, 1.0], (3, *[1] * len(shape)))
    if name == "cabs":  # ranks do not change
        times = merged(aggregate, base, taus[[0, 2, 3]], [0.5, -2.0, 1.0], **given)
        assert (found == times).all()
    else:
        assert (found == merged(aggregate, base, times, **given)).all()
    assert not merged(aggregate, base, taus, [0.0] * 4, **given).any()
    assert not merged(aggregate, base, taus[:0], [], **given).any()


def test_weights_of_cabs_change_no_ranks():
    base, taus = np.zeros((6, 9)), family("usual", (6, 9), 3)
    weights = [3.0, -0.1, 1.0]
    found = merged(CABS, base, taus, weights, n=2, m=7)
    expected = spectral.cabs(base, list(taus), n=2, m=7, weights=weights)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(7,), (12, 30), (30, 12), (40, 40)], ids=str)
@pytest.mark.parametrize("name", sorted(WHOLE.keys() - {"cabs"}))
def test_the_order_of_models_is_irrelevant(name, shape):
    aggregate, _ = WHOLE[name]
    taus, base = family("usual", shape, 5), np.zeros(shape)
    for given in [{}, *(g for n, g in OTHERS if n == name)]:
        found = merged(aggregate, base, taus, **given)
        turned = merged(aggregate, base, taus[[3, 1, 4, 0, 2]], **given)
        assert np.abs(found - turned).max() <= 10 * tolerance(name, taus, **given)


@pytest.mark.parametrize("scale", [2.0**-70, 2.0**60, -1.0])
@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_scaled_task_vector_is_a_scaled_step(name, scale):
    aggregate, _ = WHOLE[name]
    for shape in ((7,), (5, 12), (12, 5), (20, 20)):
        taus, base = family("usual", shape, 3), np.zeros(shape)
        found = merged(aggregate, base, scale * taus)
        expected = scale * merged(aggregate, base, taus)
        assert np.abs(found - expected).max() <= abs(scale) * tolerance(name, taus)


@pytest.mark.parametrize("shape", [(7,), (5, 12), (12, 5), (8, 8)], ids=str)
@pytest.mark.parametrize("name", ["tsv_m", "star", "wudi", "sce", "cabs"])
def test_one_model_with_everything_kept_is_that_model(name, shape):
    given = {"star": {"eta": Decimal(1)}, "cabs": {"n": 4, "m": 4}}.get(name, {})
    taus = family("usual", shape, 1)
    found = merged(WHOLE[name][0], np.zeros(shape), taus, **given)
    assert found == pytest.approx(taus[0], abs=1e-13)


def test_one_model_is_isotropic_with_its_nuclear_norm():
    for shape in ((5, 12), (12, 5), (8, 8)):
        taus = family("usual", shape, 1)
        norm = np.linalg.norm(taus[0], "nuc")
        for aggregate in (ISO_C, ISO_CTS):
            s = np.linalg.svd(merged(aggregate, np.zeros(shape), taus), compute_uv=False)
            assert s == pytest.approx(np.full(5 if 5 in shape else 8, norm / len(s)))


# --- singular values ---------------------------------------------------------------------------


def test_the_ranks_of_iso_cts():
    for d in range(1, 40):
        for tasks in (1, 2, 3, 5, 9, 50):
            for common in ("0", "0.2", "0.29", "0.8", "1"):
                found = iso.ranks(d, tasks, Decimal(common))
                assert found == spectral.iso_cts_ranks(d, tasks, float(common))
                assert found[0] >= 1 and found[0] + tasks * found[1] == d


def test_what_rounding_leaves_is_no_direction():
    # All of it lies in the common space: one direction, 1/5 of its length.
    left, right = np.array([[3.0], [1], [0.1], [7], [1 / 3]]), np.array([[1.0, 2, -1, 0.7, 3, 5]])
    taus = np.array([left @ right, -2 * left @ right, 5 * left @ right])
    found = merged(ISO_CTS, np.zeros((5, 6)), taus, common=Decimal("0.2"))
    assert found == pytest.approx(4 * left @ right / 5, abs=1e-12)
    # Two directions, of one and two models.
    other = np.array([[1.0], [-1], [2], [0.3], [0]]) @ np.array([[0, 1.0, 1, -1, 3, 0.2]])
    taus = np.array([left @ right, other, other])
    found = merged(ISO_CTS, np.zeros((5, 6)), taus, common=Decimal("0.4"))
    assert found == pytest.approx(merged(ISO_C, np.zeros((5, 6)), taus), abs=1e-12)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (64, 64)], ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.02, 0.1, 1.0])
def test_leading_triplets_are_those_of_an_svd(shape, decay):
    rng = np.random.default_rng(1)
    u, v = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in shape)
    d = min(shape)
    s = np.exp(-decay * np.arange(d)) * np.linspace(1, 0.5, d)
    matrix = (u[:, :d] * s) @ v[:d]
    for count in (0, 1, 7, d // 2, d):
        a, b, c = singular.leading(matrix, count)
        found = (a * b) @ c
        rank = len(b)
        assert rank == min(count, np.count_nonzero(s > singular.EPS * max(shape)), count)
        assert b == pytest.approx(s[:rank], abs=1e-14)
        assert np.abs(a.T @ a - np.eye(rank)).max(initial=0) < 1e-14
        assert np.abs(c @ c.T - np.eye(rank)).max(initial=0) < 1e-14
        gap = s[rank - 1] - s[rank] if 0 < rank < d else 1
        assert np.abs(found - (u[:, :rank] * s[:rank]) @ v[:rank]).max() < 1e-14 / min(gap, 1)


def spectrum(kind: str, shape: tuple[int, int], number: int = 0) -> np.ndarray:
    """Return a matrix that products of rows would lose digits of, or may."""
    rng = np.random.default_rng([KINDS_OF_ONE.index(kind), *shape, number])
    d = min(shape)
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "low rank":
        return rng.standard_normal((shape[0], 9)) @ rng.standard_normal((9, shape[1]))
    left, right = (np.linalg.qr(rng.standard_normal((n, d)))[0] for n in shape)
    values = {
        "decay": np.logspace(0, -5, d),
        "steep": np.logspace(0, -20, d),
        "one": np.r_[1.0, np.linspace(2e-6, 1e-6, d - 1)],
        "equal": np.r_[np.full(d // 2, 1.0), np.full(d - d // 2, 1e-3)],
        "flat": np.ones(d),
    }
    return (left * values[kind]) @ right.T


KINDS_OF_ONE = ("normal", "low rank", "decay", "steep", "one", "equal", "flat")


@pytest.mark.parametrize("shape", [(64, 64), (90, 150), (150, 90)], ids=str)
@pytest.mark.parametrize("kind", KINDS_OF_ONE)
def test_triplets_by_products_are_as_exact_as_those_of_an_svd(kind, shape, monkeypatch):
    matrix = spectrum(kind, shape)
    svds = []
    monkeypatch.setattr(singular, "_svd", lambda *args: svds.append(args))
    monkeypatch.setattr(singular, "_takes", lambda *args: 0.0)
    u, s, v = singular.triplets(matrix)
    x, exact, y = spectral.triplets(matrix)
    assert not svds and len(s) in (len(exact) - 1, len(exact), len(exact) + 1)
    assert len(s) == len(exact) or kind == "steep"  # whose values go through the smallest
    n = min(len(s), len(exact))
    # Measured: 1.2e-15, 2.0e-15 and 1.1e-14; of an SVD 2.4e-15, 3.7e-15 and 3.7e-15.
    assert np.abs(s[:n] - exact[:n]).max() <= 4e-15 * exact[0]
    x_alone, s_alone = singular.left(matrix if shape[0] <= shape[1] else matrix.T)
    assert len(s_alone) in (len(s) - 1, len(s), len(s) + 1)
    assert np.abs(s_alone[:n] - exact[:n]).max() <= 2e-14 * exact[0]
    assert np.abs(x_alone.T @ x_alone - np.eye(len(s_alone))).max() <= 2e-14
    lost = 2 * singular.EPS * max(shape) if kind == "steep" else 0  # what counts as 0
    assert np.linalg.norm((u * s) @ v - matrix) <= (5e-15 + lost) * np.linalg.norm(matrix)
    for vectors in (u.T, v):
        assert np.abs(vectors @ vectors.T - np.eye(len(s))).max() <= 2e-14
    if kind != "steep":
        off = 8 * singular.EPS * exact[0] / exact[-1]
        assert np.abs(u @ v - x @ y).max() <= max(off, 1e-14)


@pytest.mark.parametrize(
    ("kind", "svd"),
    [("normal", False), ("low rank", False), ("equal", False), ("flat", False), ("steep", True)],
)
def test_where_values_fall_fast_an_svd_is_taken(kind, svd, monkeypatch):
    taken, usual = [], singular._svd
    monkeypatch.setattr(singular, "_svd", lambda matrix: taken.append(1) or usual(matrix))
    matrix = spectrum(kind, (90, 150))
    u, s, v = singular.triplets(matrix)
    assert bool(taken) == svd
    assert np.abs((u * s) @ v - matrix).max() <= 1e-13 * np.abs(matrix).max()


@pytest.mark.parametrize("kind", KINDS_OF_ONE)
def test_what_is_split_off_is_the_rest_of_the_space(kind):
    matrix = spectrum(kind, (70, 100))
    for count in (0, 1, 9, 40, 70):
        (u, s, v), others = singular.split(matrix, count)
        space = np.hstack([u, others])
        assert len(s) <= count and space.shape == (70, 70)
        assert np.abs(space.T @ space - np.eye(70)).max() <= 2e-14
        assert np.abs(u.T @ matrix - s[:, None] * v).max(initial=0) <= 1e-14 * np.abs(matrix).sum()


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e200])
def test_squares_that_would_overflow_or_vanish_are_not_taken(scale):
    matrix = scale * spectrum("normal", (70, 80))
    u, s, v = singular.triplets(matrix)
    assert len(s) == (70 if scale else 0)
    assert np.abs((u * s) @ v - matrix).max() <= 1e-13 * scale


@pytest.mark.parametrize("shape", [(70, 100), (100, 70), (80, 80)], ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "low rank", "decay"])
@pytest.mark.parametrize(
    ("name", "given"),
    [case for case in CASES if case[0] in SPECTRAL],
    ids=[f"{n}-{g}" for n, g in CASES if n in SPECTRAL],
)
def test_larger_matrices_give_what_the_reference_does(name, given, kind, shape):
    assert min(shape) >= singular.FEW
    aggregate, reference = WHOLE[name]
    readable = {k: float(v) if isinstance(v, Decimal) else v for k, v in given.items()}
    for count in (1, 5):
        if kind in KINDS:
            taus = family(kind, shape, count)
        else:
            taus = np.array([spectrum(kind, shape, number) for number in range(count)])
        found = merged(aggregate, np.zeros(shape), taus, **given)
        expected = reference(np.zeros(shape), list(taus), **readable)
        assert np.abs(found - expected).max() <= tolerance(name, taus), count


def test_star_takes_the_fewest_singular_values():
    tau = np.diag([1.0, 4.0, 3.0, 2.0])
    assert star.cut(tau, 0.4) == pytest.approx(np.diag([0, 10.0, 0, 0]))
    assert star.cut(tau, 0.41) == pytest.approx(np.diag([0, 40 / 7, 30 / 7, 0]))


# --- variance, signs, blocks -------------------------------------------------------------------


def test_sce_counts_equal_models_as_without_variance():
    for count in range(2, 12):
        taus = family("equal", (5, 6), count)
        assert not merged(SCE, np.zeros((5, 6)), taus, density=Decimal("0.9")).any()
        assert merged(SCE, np.zeros((5, 6)), taus) == pytest.approx(taus[0])


def test_sce_elects_by_exact_sums():
    # 2^70 + 1 - 2^70 is 1, and rounds to 0 in one order: 0 would elect + as well, -1 must not.
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        taus = np.array([[2.0**70, 3], [-1, 3], [-(2.0**70), 3]])[order]
        expected = classical.sce(np.zeros(2), list(taus))
        assert expected[0] < 0
        assert merged(SCE, np.zeros(2), taus) == pytest.approx(expected)


def test_sce_ranks_equal_variances_by_position():
    taus = np.array([[1.0, 1, 1, 5], [3.0, 3, 3, 5]])
    found = merged(SCE, np.zeros(4), taus, density=Decimal("0.67"))
    assert found.tolist() == classical.sce(np.zeros(4), list(taus), density=0.67).tolist()
    assert (found != 0).tolist() == [False, True, True, False]


def test_cabs_ranks_equal_magnitudes_by_position():
    rng = np.random.default_rng(3)
    for n, m in ((1, 4), (2, 8), (3, 13), (4, 17), (64, 256)):
        taus = rng.integers(-2, 3, (4, 11, 31)).astype(np.float64)
        found = merged(CABS, np.zeros((11, 31)), taus, n=n, m=m)
        expected = spectral.cabs(np.zeros((11, 31)), list(taus), n=n, m=m)
        assert found.tolist() == expected.tolist()


def test_the_order_of_models_matters_to_cabs():
    taus = family("usual", (6, 9), 2)
    found = merged(CABS, np.zeros((6, 9)), taus, n=3, m=8)
    turned = merged(CABS, np.zeros((6, 9)), taus[::-1], n=3, m=8)
    assert math.isfinite(found.sum()) and (found != turned).any()
