"""What entries stay by rank, and sums and elections of float64 terms: all packages as NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_rows import PACKAGES, raw_weights, rows, same

from breadcrumbs.kernels import bounds, constants
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.kernels.draws import draws, stream

KINDS = constants.MEAN, constants.SUM, constants.LARGEST
#: Rows that are sorted by insertion, with narrow and wide digits, and in one and several blocks.
UNITS = (1, 2, 3, 16, 17, 60, 255, 256, 1025, 2049)


def taus_of(draw, models: int, n: int) -> np.ndarray:
    """Return task vectors of a few magnitudes, so far apart at times that pairs lose bits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0, 3, 30, 70]))
    taus = rng.standard_normal((models, n)) * 2.0 ** rng.integers(-spread, spread + 1, (models, n))
    taus[rng.random(taus.shape) < 0.3] = 0.0
    if models > 1 and draw(st.booleans()):  # sums of 0
        taus[1] = -taus[0]
    return taus


@st.composite
def terms(draw):
    """Return (task vectors (T, n), weights (T,))."""
    models = draw(st.integers(1, 12))
    weights = draw(
        st.one_of(
            st.just([1.0] * models),
            st.lists(st.sampled_from([1.0, 0.3, -0.7, 1e-9]), min_size=models, max_size=models),
        )
    )
    n = draw(st.sampled_from([1, 7, 300, 1024, 1030]))
    return taus_of(draw, models, n), np.array(weights)


@given(st.data(), st.sampled_from(UNITS), st.booleans())
@settings(max_examples=150)
def test_entries_stay_by_their_ranks_alike(data, unit, divide):
    number = data.draw(st.integers(1, max(1, 2100 // unit)))
    base, models = data.draw(rows(sizes=st.just(number * unit), least_models=1))
    rng = np.random.default_rng(unit)
    chances = rng.choice([0.0, 1.0, 0.3, 2.0**-32, 1 - 2.0**-33], unit)
    chances = np.where(rng.random(unit) < 0.8, rng.random(unit), chances)
    key, start = stream(unit, "a model"), data.draw(st.integers(0, 5))
    results = []
    for kernels in PACKAGES.values():
        taus, kept = np.full(base.size, np.nan), np.zeros(base.size, np.bool_)
        with np.errstate(all="ignore"):
            given_ = base, models[0], unit, key, start, chances, divide, taus, kept
            kernels.keep_by_rank(*given_)
        results.append((taus, kept))
    for taus, kept in results[1:]:
        assert same(results[0][0], taus) and same(results[0][1], kept)


def test_ranks_are_those_of_the_magnitudes_and_then_of_the_positions():
    base = np.zeros(6, np.float32)
    model = np.array([0.5, -0.25, 0.0, 0.25, -0.5, 0.125], np.float32)
    ranks = [4, 2, 0, 3, 5, 1]
    chances = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    key = stream("ranks")
    for kernels in PACKAGES.values():
        taus, kept = np.empty(6), np.empty(6, np.bool_)
        kernels.keep_by_rank(base, model, 6, key, 0, chances, True, taus, kept)
        stays = draws(key, 0, 6) / 2.0**32 < chances[ranks]
        assert kept.tolist() == stays.tolist() and not stays.all()
        assert (
            taus.tolist()
            == np.where(stays, model.astype(np.float64) / chances[ranks], 0.0).tolist()
        )


@given(terms(), st.booleans())
@settings(max_examples=150)
def test_sums_are_exact(it, weighted):
    taus, weights = it
    expected = [
        math.fsum(column) for column in (weights[:, None] * taus if weighted else taus).T.tolist()
    ]
    for kernels in PACKAGES.values():
        found = kernels.exact_sum(taus, weights if weighted else None)
        assert found.tolist() == expected


@given(
    terms(),
    st.sampled_from([constants.MEAN, constants.SUM, constants.LARGEST]),
    st.sampled_from([1, -1]),
)
@settings(max_examples=200)
def test_elections_end_alike(it, kind, majority):
    taus, weights = it
    for signed in (False, True):
        given_ = weights, kind, majority, signed
        for kernels in PACKAGES.values():
            assert same(plain.elected(taus, *given_) + 0.0, kernels.elected(taus, *given_) + 0.0)


@pytest.mark.parametrize("kernels", PACKAGES.values(), ids=PACKAGES)
def test_what_pairs_of_numbers_lose_still_counts(kernels):
    tiny = 2.0**-130
    halfway = np.array([[1.0], [2.0**-53], [tiny]])  # only the last one says to round up
    ones = np.ones(3)
    assert kernels.exact_sum(halfway).tolist() == [1 + 2.0**-52]
    assert kernels.elected(halfway, ones, constants.SUM, 1, False).tolist() == [1 + 2.0**-52]
    close = np.array([[1.0, 1.0], [2.0**-60] * 2, [-1.0, -1.0], [-(2.0**-60)] * 2, [tiny, -tiny]])
    found = kernels.elected(close, np.ones(5), constants.LARGEST, 1, False)
    assert found.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("kernels", PACKAGES.values(), ids=PACKAGES)
def test_an_entry_whose_draw_is_its_limit_goes(kernels):
    base, model, key = np.zeros(40, np.float32), np.arange(40, dtype=np.float32) + 1, stream(2)
    taus, kept = np.empty(40), np.empty(40, np.bool_)
    for more, divide in np.ndindex(2, 2):
        chances = (draws(key, 3, 40) + float(more)) / 2.0**32
        kernels.keep_by_rank(base, model, 40, key, 3, chances, bool(divide), taus, kept)
        assert kept.all() if more else not kept.any()
        assert (taus == kept * (model / chances if divide else model)).all()


@pytest.mark.parametrize("kernels", PACKAGES.values(), ids=PACKAGES)
def test_without_a_step_a_zero_keeps_its_sign(kernels):
    base, step = np.array([-0.0, -0.0, 1.0, -0.0]), np.array([0.0, -0.0, -1.0, 2.0])
    found = kernels.add_step(base, step)
    assert same(found, np.array([-0.0, -0.0, 0.0, 2.0]))


def test_zeros_and_equal_keys_are_ranked_by_position():
    rng = np.random.default_rng(0)
    for dtype in (np.uint16, np.float32):
        for kind in ("zeros", "constant", "ties"):
            base = raw_weights("zeros", (600,), dtype, rng)
            model = raw_weights(kind, (600,), dtype, rng)
            chances = np.linspace(0.2, 0.9, 300)
            both = []
            for kernels in PACKAGES.values():
                taus, kept = np.empty(600), np.empty(600, np.bool_)
                kernels.keep_by_rank(base, model, 300, stream(1), 1, chances, True, taus, kept)
                both.append((taus.tobytes(), kept.tobytes()))
            assert len(set(both)) == 1


@pytest.mark.parametrize("kernels", PACKAGES.values(), ids=PACKAGES)
@pytest.mark.parametrize("kind", [*KINDS, constants.TOTAL])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("unit", [1, 7, 300, 2500])
def test_what_stays_by_rank_is_merged_as_step_by_step(kernels, kind, dtype, unit):
    rng = np.random.default_rng(unit)
    n, number = unit * 3, 4
    base, models = (
        raw_weights("ties", (n,), dtype, rng),
        raw_weights("ties", (number, n), dtype, rng),
    )
    models[:, ::5] = base[::5]
    keys = np.array([stream(t) for t in range(number)], np.uint64)
    chances = np.sort(rng.uniform(0.1, 0.9, (number, unit)), axis=1)
    for weights, divide in (np.ones(number), 1), (np.array([0.5, -1.0, 2.0, 0.3]), 0):
        divides = np.array([divide] * 3 + [1 - divide], np.uint8)
        taus, stays = np.empty((number, n)), np.empty((number, n), np.bool_)
        for t in range(number):
            given = unit, keys[t], 11, chances[t], bool(divides[t]), taus[t], stays[t]
            plain.keep_by_rank(base, models[t], *given)
        if kind == constants.TOTAL:
            step = plain.exact_sum(taus, weights)
        else:
            step = plain.elected(taus, weights, kind, -1, True)
        wide = plain.widen(base).astype(np.float64)
        name = "BF16" if dtype == np.uint16 else "F32"
        wanted = plain.round_to(plain.add_step(wide, 0.3 * step), name)
        out, found, kept = np.empty(n, dtype), np.empty(n), np.ones(number, np.int64)
        extent = np.array(bounds.NO_EXTENT, np.uint32)
        drawn = keys, 11, chances
        how = divides, weights, kind, -1, True, 0.3, extent, out, found, kept
        squares = kernels.merge_by_rank(base, models, unit, drawn, *how)
        assert same(out, wanted.view(dtype))
        assert same(found + 0.0, step + 0.0)
        assert kept.tolist() == (1 + stays.sum(axis=1)).tolist()
        assert squares == pytest.approx(((0.3 * step) ** 2).sum(), rel=1e-12)
        smallest, largest = plain.extent(np.concatenate([base[None], models]))
        assert bounds.extent_of(extent, np.dtype(dtype)) == (smallest, largest)


def test_what_no_pair_holds_is_merged_exactly_too():
    base = np.zeros(3, np.float32)
    models = np.array([[1.0] * 3, [2.0**-53] * 3, [2.0**-130] * 3], np.float32)
    keys, chances = np.zeros(3, np.uint64), np.ones((3, 3))
    both = []
    for kernels in PACKAGES.values():
        out, found, kept = np.empty(3, np.float32), np.empty(3), np.zeros(3, np.int64)
        extent = np.array(bounds.NO_EXTENT, np.uint32)
        how = np.zeros(3, np.uint8), np.ones(3), constants.TOTAL, 1, False, 1.0
        kernels.merge_by_rank(base, models, 3, (keys, 0, chances), *how, extent, out, found, kept)
        assert found.tolist() == [1 + 2.0**-52] * 3
        assert kept.tolist() == [3] * 3
        both.append((out.tobytes(), extent.tobytes()))
    assert len(set(both)) == 1


@pytest.mark.parametrize("fine", [0.0, 0.01, 0.4, 0.9])
def test_keys_with_and_without_lower_bits_are_ranked_together(fine):
    # Few keys have lower bits in bfloat16: those are sorted apart, and all where they are many.
    rng = np.random.default_rng(1)
    base, key = np.zeros(2600, np.float32), stream(1)
    model = rng.integers(0, 40, 2600).astype(np.float32) / 1024
    apart = rng.random(2600) < fine
    model[apart] *= 1 + rng.integers(0, 9, apart.sum()) * np.float32(2**-20)
    model *= rng.choice([-1, 1], 2600)
    for unit in (20, 260, 1300):
        chances = np.linspace(0.2, 0.3, unit)
        for divide in (False, True):
            both = []
            for kernels in PACKAGES.values():
                taus, kept = np.empty(2600), np.empty(2600, np.bool_)
                kernels.keep_by_rank(base, model, unit, key, 0, chances, divide, taus, kept)
                both.append((taus.tobytes(), kept.tobytes()))
            assert len(set(both)) == 1
