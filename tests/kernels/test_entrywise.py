"""What methods ask that look at each entry of all models: all packages as NumPy, and right."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_rows import PACKAGES, rows, same
from test_terms import taus_of

from breadcrumbs.kernels import numpy as plain

OTHERS = {name: it for name, it in PACKAGES.items() if it is not plain}
#: At the edges of blocks and of vectors.
SIZES = (0, 1, 7, 8, 9, 511, 512, 513, 1300)


@st.composite
def terms(draw, most: int = 9):
    """Return (task vectors (T, n), some rows apart in memory, weights (T,))."""
    models, n = draw(st.integers(1, most)), draw(st.sampled_from(SIZES))
    taus = taus_of(draw, models, n)
    if draw(st.booleans()):
        taus = np.concatenate([taus, taus], axis=1)[:, :n]
    weights = st.sampled_from([1.0, 0.3, -0.7, 2.0])
    equal = draw(st.booleans())
    return taus, np.array([1.0 if equal else draw(weights) for _ in range(models)])


@given(rows())
def test_differences_are_those_of_float64(it):
    base, models = it
    for name, kernels in PACKAGES.items():
        wide, taus = np.empty(base.size), np.full((len(models), base.size + 3), 7.0)
        with np.errstate(all="ignore"):
            finite = kernels.differences(base, models, wide, taus[:, : base.size])
            numbers = plain.widen(base).astype(np.float64)
            expected = [plain.widen(model).astype(np.float64) - numbers for model in models]
        assert same(wide, numbers), name
        assert all(same(tau[: base.size], mine) for tau, mine in zip(taus, expected, strict=True))
        assert (taus[:, base.size :] == 7).all()
        ends = np.isfinite(plain.widen(base)).all() and np.isfinite(plain.widen(models)).all()
        assert finite == ends


@given(terms(1), st.sampled_from([-1.0, 0.0, 0.5, -math.inf]), st.sampled_from([0.0, 1, math.inf]))
def test_values_are_sifted(it, low, high):
    values = it[0][0]
    inside = np.flatnonzero((values >= low) & (values <= high))
    for kernels in PACKAGES.values():
        below, kept, places = kernels.sift(values, low, high)
        assert below == np.count_nonzero(values < low)
        assert same(kept, values[inside]) and places.tolist() == inside.tolist()


@given(terms(), st.booleans())
@settings(max_examples=150)
def test_conflicts_and_variances_are_numpys(it, narrow):
    for kernels in OTHERS.values():
        assert same(kernels.conflicts(*it, narrow), plain.conflicts(*it, narrow))
        assert same(kernels.variances(*it), plain.variances(*it))


def test_conflict_is_twice_the_products_of_pairs():
    taus = np.array([[1.0, -2, 0], [3, 5, 0], [-4, 0, 2]])
    for kernels in PACKAGES.values():
        found = kernels.conflicts(taus, np.array([1.0, -1, 2]), False)
        assert found.tolist() == [2 * (3 + 8 + 24), 20, 0]
        assert kernels.variances(taus, np.ones(3))[2] == 3 * 4 - 2**2


@given(terms())
@settings(max_examples=150)
def test_claims_are_numpys(it):
    taus, weights = it
    total, rest = plain.exact_pair(taus, weights)
    ps, qs = np.arange(1.0, 1 + len(taus)), np.full(len(taus), 5.0)
    expected = plain.claims(taus, weights, total, rest, ps, qs)
    for kernels in OTHERS.values():
        votes, *numbers = kernels.claims(taus, weights, total, rest, ps, qs)
        assert same(votes, expected[0]) and tuple(numbers) == expected[1:]


def test_claims_are_exact_where_the_sum_is_rounded():
    # The other of the first is 1, which the rounded sum has lost.
    taus = np.array([[2.0**60], [1.0]])
    for kernels in PACKAGES.values():
        total, rest = kernels.exact_pair(taus)
        for p, votes in ((2.0**59, 1), (2.0**60, 0)):
            of = taus[:1], np.ones(1), total, rest, np.array([p]), np.ones(1)
            assert kernels.claims(*of)[0].tolist() == [votes]


@given(terms(), st.sampled_from([0.0, 0.5, 0.9, 1.0]), st.sampled_from([1, 2, 40, 1000, 2000]))
@settings(max_examples=150)
def test_contenders_are_numpys_and_leave_out_none(it, quantile, number):
    taus, weights = it
    sums, sizes = plain.exact_sum(taus, weights), np.abs(weights[0] * taus[0])
    low, high = np.quantile(sizes, [0.1, 0.9]) if sizes.size else (0.0, 0.0)
    of = taus[0], float(weights[0]), sums, float(low), float(high), number
    with np.errstate(all="ignore"):
        _, _, exponents, balances = plain.contend(*of, -1.0)
        assert len(exponents) == taus.shape[1]
        products = np.exp(exponents) * np.tanh(balances)
        bound = float(np.quantile(products, quantile)) if products.size else 0.0
        expected = plain.contend(*of, bound)
        for kernels in PACKAGES.values():
            found = kernels.contend(*of, bound)
            assert all(same(a, b) for a, b in zip(found, expected, strict=True))
            places = found[0]
            assert (products[np.setdiff1d(np.arange(products.size), places)] < bound).all()
            assert same(found[2], exponents[places]) and same(found[3], balances[places])


def test_few_contend():
    rng = np.random.default_rng(0)
    taus = rng.standard_normal((4, 5000)) * 1e-3
    sums = plain.exact_sum(taus)
    of = taus[0], 1.0, sums, 1e-6, 4e-3, 4
    for kernels in PACKAGES.values():
        _, _, exponents, balances = kernels.contend(*of, 0.0)
        bound = float(np.quantile(np.exp(exponents) * np.tanh(balances), 0.9))
        assert 500 <= kernels.contend(*of, bound)[0].size < 510


@given(terms(1), st.sampled_from([0, 3, 700, -700, -1050]))
def test_units_are_exact(it, shift):
    with np.errstate(all="ignore"):
        values = np.ldexp(it[0][0], shift)
    values = values[np.isfinite(values)]
    for kernels in PACKAGES.values():
        units = np.zeros((2100, 2), np.int64)
        kernels.add_units(values, units)
        kernels.add_units(-values[:1], units)
        found = sum(
            ((upper << 26) + lower) << row for row, (upper, lower) in enumerate(units.tolist())
        )
        assert Fraction(found, 2**1126) == sum(map(Fraction, values[1:].tolist()))


@given(terms(), st.floats(0, 1))
@settings(max_examples=150)
def test_sparse_sums_are_exact(it, share):
    taus, _ = it
    n = taus.shape[1]
    rng = np.random.default_rng(n)
    keeps = rng.random(taus.shape) < share
    places = [np.flatnonzero(keep).astype(np.uint32) for keep in keeps]
    values = [tau[at] for tau, at in zip(taus, places, strict=True)]
    expected = [math.fsum(column) for column in np.where(keeps, taus, 0.0).T.tolist()]
    for kernels in PACKAGES.values():
        assert kernels.exact_at(n, places, values).tolist() == expected


@given(terms())
@settings(max_examples=150)
def test_one_vector_for_all(it):
    taus, weights = it
    products = weights[:, None] * taus
    sums = [math.fsum(column) for column in products.T.tolist()]
    signs = np.where(np.array(sums) > 0, 1.0, -1.0)
    agree = products * signs > 0
    expected = signs * np.where(agree, np.abs(products), 0.0).max(axis=0, initial=0.0)
    for kernels in PACKAGES.values():
        assert (kernels.unify(taus, weights) == expected).all()
        for row in range(len(taus)):
            mine = np.where(agree[row], expected, 0.0)
            assert (kernels.unify(taus, weights, row) == mine).all()


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_where_a_sum_is_not_exact_the_next_blocks_are_right_too(name):
    taus = np.ones((3, 2000))
    taus[:, 700] = 2.0**80, 1, -(2.0**80)
    total, rest = OTHERS[name].exact_pair(taus)
    assert total[700] == 1 and (np.delete(total, 700) == 3).all() and not rest.any()
