"""Elections in one go: all kernels equal exact sums in a loop, each other, and the aggregate."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from raw_rows import (
    ALPHAS,
    OTHERS,
    PACKAGES,
    RAWS,
    assert_same_merge,
    cuts_of_units,
    drawn_rows,
    floats,
    raw_weights,
    rows,
    same,
)

from breadcrumbs.engine import exactness
from breadcrumbs.kernels import bounds
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.kernels.draws import draws
from breadcrumbs.merging import files, opening
from breadcrumbs.methods.aggregates import Entries
from breadcrumbs.methods.aggregates.elect import election
from breadcrumbs.plan.recipe import Model, Recipe

KINDS = st.sampled_from([0, 1, 2])
MAJORITIES = st.sampled_from([1, -1])
FORMATS = {np.uint16: "bfloat16", np.float32: "float32"}


@st.composite
def few_values(draw):
    """Return (raw base, raw models) of few values, so with ties, sums of 0 and both zeros."""
    n, number, dtype = draw(st.integers(1, 30)), draw(st.integers(1, 6)), draw(RAWS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    wide = rng.integers(-2, 3, (number + 1, n)) / 4 * rng.choice([-1.0, 1.0], (number + 1, n))
    single = wide.astype(np.float32)
    raw = (single.view(np.uint32) >> 16).astype(np.uint16) if dtype == np.uint16 else single
    return raw[0], np.ascontiguousarray(raw[1:])


def kept_by(cut: list[int], keys: list[int]) -> list[bool]:
    """Return which keys of a unit a cut keeps, counting ties one by one."""
    low, low_ties, high, high_ties = cut
    lows = highs = 0
    result = []
    for key in keys:
        lows += key == low
        highs += key == high
        cut_low = key < low or (key == low and (low_ties < 0 or lows <= low_ties))
        cut_high = key > high or (key == high and 0 <= high_ties < highs)
        result.append(not cut_low and not cut_high)
    return result


def cut_in_a_loop(base, models, unit: int, cuts) -> list[list[bool]]:
    keys = plain.magnitudes(base, models).tolist()
    return [
        [
            keep
            for u in range(len(cuts))
            for keep in kept_by(cuts[u, t].tolist(), keys[t][u * unit : (u + 1) * unit])
        ]
        for t in range(len(models))
    ]


def terms_of(base, models, keep, i: int) -> list[Fraction]:
    x = Fraction(floats(base)[i])
    return [Fraction(floats(m)[i]) - x for m, mine in zip(models, keep, strict=True) if mine[i]]


def elect_in_a_loop(base, models, keep, kind, majority) -> list[float]:
    steps = []
    for i in range(base.size):
        terms = terms_of(base, models, keep, i)
        sign = (sum(terms) > 0) - (sum(terms) < 0) or majority
        agreeing = [term for term in terms if term * sign > 0]
        if not agreeing:
            steps.append(0.0)
        elif kind == 2:
            steps.append(float(sign * max(map(abs, agreeing))))
        else:
            steps.append(float(sum(agreeing)) / (len(agreeing) if kind == 0 else 1))
    return steps


def merged_in_a_loop(base, steps, alpha: float, dtype) -> list[float]:
    added = [(x, alpha * step) for x, step in zip(floats(base), steps, strict=True)]
    return [reference.nearest(x + y if y else x, FORMATS[dtype]) for x, y in added]


def assert_right(base, models, keep, kernel, arguments, kind, majority, alpha, dtype) -> None:
    extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(base.size, dtype)
    found = np.empty(base.size)
    results = alpha, extent, out, found
    spare = np.empty(base.size, np.uint32), np.empty(base.size, dtype)
    banded = kernel.__name__ == "elect_band"
    squares = kernel(base, models, *arguments, kind, majority, *results, *(spare if banded else ()))
    if banded:
        squares, votes, number, more = squares
        assert_polled(
            base, models, keep, (kind, majority, alpha, squares), spare, votes, number, more
        )
    steps = elect_in_a_loop(base, models, keep, kind, majority)
    assert found.tolist() == steps
    # As strings, since 0 and -0 are equal.
    assert list(map(repr, floats(out))) == list(
        map(repr, merged_in_a_loop(base, steps, alpha, dtype))
    )
    assert math.isclose(squares, math.fsum(step * step for step in steps), rel_tol=1e-12)
    assert bounds.extent_of(extent, base.dtype) == plain.extent(np.vstack([base[None], models]))


def assert_polled(base, models, keep, how, spare, votes, number, more) -> None:
    """Compare votes, undecided entries and what the other majority makes of them with a loop's."""
    kind, majority, alpha, squares = how
    sums = [sum(terms_of(base, models, keep, i)) for i in range(base.size)]
    assert votes == sum((total > 0) - (total < 0) for total in sums)
    undecided = [
        i for i, total in enumerate(sums) if total == 0 and any(terms_of(base, models, keep, i))
    ]
    where, other = spare[0][:number], spare[1][:number]
    assert where.tolist() == undecided
    steps = elect_in_a_loop(base, models, keep, kind, -majority)
    merged = merged_in_a_loop(base, steps, alpha, other.dtype.type)
    assert list(map(repr, floats(other))) == [repr(merged[i]) for i in undecided]
    total = math.fsum(step * step for step in steps)
    assert math.isclose(squares + more, total, rel_tol=1e-12, abs_tol=1e-15)


@pytest.mark.parametrize("kernels", PACKAGES.values(), ids=PACKAGES)
@given(it=few_values(), kind=KINDS, majority=MAJORITIES, alpha=ALPHAS, dtype=RAWS, data=st.data())
@settings(max_examples=150)
def test_elect_band_is_an_election_in_a_loop(kernels, it, kind, majority, alpha, dtype, data):
    base, models = it
    unit, cuts = data.draw(cuts_of_units(base, models))
    keep = cut_in_a_loop(base, models, unit, cuts)
    arguments = unit, cuts
    assert_right(base, models, keep, kernels.elect_band, arguments, kind, majority, alpha, dtype)


@pytest.mark.parametrize("kernels", PACKAGES.values(), ids=PACKAGES)
@given(it=few_values(), kind=KINDS, majority=MAJORITIES, alpha=ALPHAS, dtype=RAWS, data=st.data())
@settings(max_examples=100)
def test_elect_drawn_is_an_election_in_a_loop(kernels, it, kind, majority, alpha, dtype, data):
    base, models = it
    keys, start, limits = data.draw(drawn_rows(models))
    keep = [[True] * base.size for _ in models]
    if limits.size:
        drawn = [draws(key, start, base.size).tolist() for key in keys]
        keep = [[x < limits[t] for x in drawn[t]] for t in range(len(models))]
    kept = np.zeros(len(models), np.int64)

    def elect(*arguments):
        return kernels.elect_drawn(*arguments, kept)

    arguments = keys, start, limits
    assert_right(base, models, keep, elect, arguments, kind, majority, alpha, dtype)
    assert kept.tolist() == [sum(row) if limits.size else 0 for row in keep]


def assert_equal_results(base, dtype, other, run) -> None:
    """Compare what ``run(kernel, extent, out, found)`` makes with NumPy's kernels and others."""
    results = []
    for kernel in (plain, other):
        extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(base.size, dtype)
        with np.errstate(over="ignore"):
            found = np.empty(base.size)
            squares, *rest = run(kernel, extent, out, found)
        results.append((bounds.extent_of(extent, base.dtype), out, found, squares, rest))
    (extent, out, found, squares, rest), (again, raw, steps, sums, more) = results
    assert extent == again and same(out, raw) and rest == more
    np.testing.assert_array_equal(found, steps)  # of steps of 0 the sign has no say
    assert math.isclose(squares, sums, rel_tol=1e-9)


@pytest.mark.parametrize("other", OTHERS)
@given(rows(), st.data(), KINDS, MAJORITIES, ALPHAS, RAWS, st.sampled_from([1, 2, 0]))
@settings(max_examples=200)
def test_elect_band(other, it, data, kind, majority, alpha, dtype, parts):
    base, models = it
    unit, cuts = data.draw(cuts_of_units(base, models))
    room = base.size // parts if parts else 0

    def run(kernel, *results):
        where, turned = np.zeros(room, np.uint32), np.zeros(room, dtype)
        how = unit, cuts, kind, majority, alpha
        given_ = *how, *results, where, turned
        squares, votes, number, more = kernel.elect_band(base, models, *given_)
        if number > room:
            return squares, votes, number
        return squares + more, votes, number, where.tolist(), turned.tobytes()

    assert_equal_results(base, dtype, other, run)


@pytest.mark.parametrize("other", OTHERS)
@given(rows(), st.data(), KINDS, MAJORITIES, ALPHAS, RAWS)
@settings(max_examples=120)
def test_elect_drawn(other, it, data, kind, majority, alpha, dtype):
    base, models = it
    arguments = models, *data.draw(drawn_rows(models)), kind, majority, alpha

    def run(kernel, *results):
        kept = np.zeros(len(models), np.int64)
        return kernel.elect_drawn(base, *arguments, *results, kept), kept.tolist()

    assert_equal_results(base, dtype, other, run)


@pytest.mark.parametrize("number", [1, 2, 5, 32])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@given(st.integers(0, 2**32), st.sampled_from(["mean", "sum", "max"]), MAJORITIES, ALPHAS)
@settings(max_examples=15)
def test_elections_are_those_of_the_aggregate(number, dtype, seed, merge, majority, alpha):
    rng = np.random.default_rng(seed)
    raw = raw_weights("usual", (number + 1, 3000), dtype, rng)
    if dtype == np.float32:  # few enough places for exact sums
        raw = (np.round(raw * 2.0**20) / 2.0**20).astype(np.float32)
    base, models = raw[0], raw[1:]
    smallest, largest = plain.extent(raw)
    assume(exactness.provably_exact(smallest, largest, number, 7 if dtype == np.uint16 else 23))
    wide = plain.widen(base).astype(np.float64)
    taus = plain.widen(models) - wide
    cuts = plain.cut_units(base, models, 1500, 600, 1480)
    for u, t in np.ndindex(*cuts.shape[:2]):
        run = slice(1500 * u, 1500 * (u + 1))
        taus[t, run][~plain.band(plain.magnitudes(base[run], models[t, run]), cuts[u, t])] = 0
    entries = Entries(taus, taus != 0, np.ones(number), majority)
    aggregate = election(merge, 1.0)
    step = alpha * aggregate.combine(entries, {"merge": merge, "shares": "magnitudes"})
    merged = np.where(step == 0, wide, wide + step)
    expected = plain.round_to(merged, "BF16" if dtype == np.uint16 else "F32").view(dtype)
    kind = ["mean", "sum", "max"].index(merge)
    for kernel in PACKAGES.values():
        extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(base.size, dtype)
        spare = np.empty(0), np.empty(3000, np.uint32), np.empty(3000, dtype)
        arguments = 1500, cuts, kind, majority, alpha, extent, out
        _, votes, _, _ = kernel.elect_band(base, models, *arguments, *spare)
        assert same(out, expected)
        assert aggregate.vote and votes == aggregate.vote(entries)


SHARED = st.sampled_from([(0.3, 0.3, 0.3, 0.3, 0.3, 0.3), (0.5, -1.0, 1 / 3, 2.0, 0.1, 7.0)])


@pytest.mark.parametrize("kernel", PACKAGES.values(), ids=PACKAGES)
@given(few_values(), KINDS, MAJORITIES, SHARED, st.booleans(), ALPHAS, RAWS, st.data())
@settings(max_examples=250)
def test_elect_weighted_is_the_aggregates_election(
    kernel, it, kind, majority, weights, signed, alpha, dtype, data
):
    base, models = it
    number, wide = len(models), plain.widen(base).astype(np.float64)
    given_ = np.array(weights[:number])
    unit, cuts, drawn = base.size, np.empty((0, number, 4), np.int64), data.draw(drawn_rows(models))
    keep = [plain.drawn(base.size, *drawn, t) for t in range(number)]
    if data.draw(st.booleans()):
        unit, cuts = data.draw(cuts_of_units(base, models))
        keep = cut_in_a_loop(base, models, unit, cuts)
    taus = np.where(keep, plain.widen(models).astype(np.float64) - wide, 0.0)
    entries = Entries(taus, np.array(keep), given_, majority)
    values = {"merge": ["mean", "sum", "max"][kind], "shares": "signed" if signed else "magnitudes"}
    step = alpha * election("mean", 1.0).combine(entries, values)
    expected = np.where(step == 0, wide, wide + step)
    name = "BF16" if dtype == np.uint16 else "F32"
    mine = given_ if signed else np.abs(given_)
    shares = np.array(
        [math.fsum(w for t, w in enumerate(mine) if b >> t & 1) for b in range(1 << number)]
    )
    extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(base.size, dtype)
    kept = np.zeros(number, np.int64)
    found = np.empty(base.size)
    arguments = unit, cuts, drawn, kind, majority, given_, shares, alpha, extent, out, found, kept
    _, votes, inexact = kernel.elect_weighted(base, models, *arguments)
    if not inexact:
        assert (alpha * found == step).all()
        vote: Any = election("mean", 1.0).vote
        assert votes == vote(entries)
        assert same(out, plain.round_to(expected, name).view(dtype))


@pytest.mark.parametrize("other", OTHERS)
@given(rows(), KINDS, MAJORITIES, SHARED, ALPHAS, RAWS, st.data())
@settings(max_examples=200)
def test_elect_weighted(other, it, kind, majority, weights, alpha, dtype, data):
    base, models = it
    number = len(models)
    shares = np.arange(1 << number) / 7
    unit, cuts, drawn = base.size, np.empty((0, number, 4), np.int64), data.draw(drawn_rows(models))
    if data.draw(st.booleans()):
        unit, cuts = data.draw(cuts_of_units(base, models))
    settings_ = unit, cuts, drawn, kind, majority, np.array(weights[:number]), shares, alpha

    def run(kernel, extent, out):
        kept = np.zeros(number, np.int64)
        results = extent, out, np.empty(0), kept
        return *kernel.elect_weighted(base, models, *settings_, *results), kept.tolist()

    assert_same_merge(base, dtype, other, run)


def test_opposite_terms_that_only_their_remainders_tell_apart():
    base = np.zeros(2, np.float32)
    models = np.array([[1.0, 1.0], [1.0, 1.0], [2.0**-40, -(2.0**-40)]], np.float32)
    weights = np.array([1 / 3, -1 / 3, 2.0**-30])
    for kernel in PACKAGES.values():
        extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(2, np.float32)
        drawn = np.zeros(3, np.uint64), 0, np.empty(0, np.uint32)
        arguments = 2, np.empty((0, 3, 4), np.int64), drawn, 1, 1, weights, np.empty(1), 1.0
        results = extent, out, np.empty(0), np.zeros(3, int)
        _, votes, inexact = kernel.elect_weighted(base, models, *arguments, *results)
        assert votes == 0
        assert not inexact and out.tolist() == [np.float32(1 / 3), np.float32(-1 / 3)]


@pytest.mark.parametrize("weight", [1.0, 0.5, -0.25])
def test_the_norm_of_an_election_with_a_common_weight_is_that_of_its_update(weight):
    rng = np.random.default_rng(0)
    base = {"w": rng.integers(-9, 9, (50, 40)).astype(np.float32)}
    models = [{"w": base["w"] + rng.integers(-3, 4, (50, 40), np.int8)} for _ in range(3)]
    names = tuple(Model(f"ft{i}", weight) for i in range(3))
    made = Recipe("base", names, "ties", {"density": 1, "granularity": "tensor"})
    with opening.opened(made, [base, *models]) as plan:
        arrays, report = files.to_arrays(plan)
    norm = np.linalg.norm(arrays["w"].astype(np.float64) - base["w"])
    assert norm > 0 and math.isclose(report.norm, norm, rel_tol=1e-6)
