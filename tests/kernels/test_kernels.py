"""NumPy's kernels equal the reference; every other package equals NumPy's, bit for bit."""

import bisect
import math
from fractions import Fraction

import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_rows import (
    ALPHAS,
    KINDS,
    OTHERS,
    PACKAGES,
    RAWS,
    WEIGHTS,
    assert_same_merge,
    brackets,
    cuts_of_units,
    drawn_rows,
    floats,
    raw_weights,
    rows,
    same,
)

from breadcrumbs import kernels
from breadcrumbs.engine import exactness
from breadcrumbs.engine.passes import tally as survey
from breadcrumbs.kernels import bounds, constants, draws, exact, protocol
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.plan.sizes import USUAL


def tau32(base: np.ndarray, model: np.ndarray) -> list[float]:
    pairs = zip(floats(model), floats(base), strict=True)
    return [reference.nearest(x - y, "float32") for x, y in pairs]


def test_wide_weights_are_numpys():
    assert kernels.choose("numpy") is kernels.choose("native", wide=True) is plain


# --- plain kernels match the reference ---------------------------------------------------------


@given(rows(sizes=st.integers(1, 60), least_models=1))
def test_keys_order_like_the_magnitudes_of_the_reference(it):
    base, models = it
    for keys, model in zip(plain.magnitudes(base, models), models, strict=True):
        expected = np.abs(np.array(tau32(base, model), np.float32)).view(np.uint32)
        assert same(keys, expected)


@given(rows(sizes=st.integers(1, 60), least_models=1), st.data())
def test_units_keep_the_ranks_of_the_reference(it, data):
    base, models = it
    n = base.size
    unit = data.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
    first, last = data.draw(st.integers(0, unit)), data.draw(st.integers(0, unit))
    cuts = plain.cut_units(base, models, unit, first, last)
    for t, model in enumerate(models):
        keys, tau = plain.magnitudes(base, model), tau32(base, model)
        for u in range(n // unit):
            part = slice(u * unit, (u + 1) * unit)
            keep = plain.band(keys[part], cuts[u, t])
            expected = [first < rank <= last for rank in reference.ranks(tau[part])]
            assert keep.tolist() == expected


@given(rows(sizes=st.integers(1, 30)), st.sampled_from([1.0, 0.5, -0.3, 1e-3]), st.data())
def test_merging_whole_rows_is_the_references_sum(it, alpha, data):
    base, models = it
    n, number = base.size, len(models)
    finest = st.floats(-2, 2, allow_subnormal=False)
    weights = data.draw(st.lists(finest, min_size=number, max_size=number))
    total, rest, inexact = np.zeros(n), np.zeros(n), np.zeros(n, np.uint8)
    cuts = plain.cut_units(base, models, n, 0, n)
    plain.add_band(base, models, n, cuts, np.array(weights), total, rest, inexact)
    columns = [floats(model) for model in models]
    for i, x in enumerate(floats(base)):
        terms = []
        for column, weight in zip(columns, weights, strict=True):
            high, low = reference.difference(column[i], x)
            terms += [weight * high, weight * low]
        exact = sum(map(Fraction, terms), Fraction(0))
        if not inexact[i]:
            assert Fraction(total[i]) + Fraction(rest[i]) == exact
        high, low = reference.exact_sum(terms)
        merged = plain.merge(base[i : i + 1], np.array([high]), np.array([low]), alpha)
        assert merged[0] == reference.add(x, high, low, alpha)


@given(rows(sizes=st.integers(1, 40)))
def test_zeros_get_the_sign_of_the_reference(it):
    base, models = it
    total = plain.widen(models).astype(np.float64).sum(axis=0) * (base % 2 == 0)
    merged = np.copysign(np.zeros(base.size), total)
    expected = [
        reference.signed_zero(x, [floats(m)[i] for m in models], total[i], merged[i])
        for i, x in enumerate(floats(base))
    ]
    plain.sign_zeros(merged, np.arange(base.size), base, models, total)
    assert same(merged, np.array(expected))


# --- all packages ------------------------------------------------------------------------------


@given(rows(least_models=1), st.data())
def test_select(it, data):
    base, models = it
    keys = plain.magnitudes(base, models)[0]
    low, end = sorted(data.draw(st.tuples(*[st.sampled_from(keys.tolist())] * 2)))
    inside = sorted(key for key in keys.tolist() if low <= key <= end)
    place = data.draw(st.integers(1, len(inside) + 2))
    expected = (0, 0)
    if place <= len(inside):
        key = inside[place - 1]
        expected = key, place - sum(other < key for other in inside)
    for kernel in PACKAGES.values():
        assert tuple(map(int, kernel.select(keys, np.uint32(low), np.uint32(end), place))) == (
            expected
        )


@given(rows(least_models=1), st.integers(0, 31), st.sampled_from([1, 16, 2048]))
def test_histogram_counts_keys_of_its_bins(it, shift, bins):
    base, models = it
    keys = plain.magnitudes(base, models)
    first = keys[:, 0].copy()
    counts = np.ones((len(models), bins), np.int64)
    plain.histogram(base, models, first, shift, counts)
    for t in range(len(models)):
        expected = [1] * bins
        for key in keys[t].tolist():
            place = (key - int(first[t])) >> shift
            if 0 <= place < bins:
                expected[place] += 1
        assert counts[t].tolist() == expected


def test_draws_are_those_of_the_reference_from_any_place_on():
    expected = reference.draws((0, "a", "w"), 100)
    key = draws.stream(0, "a", "w")
    for start in (0, 1, 2, 17, 98):
        assert draws.draws(key, start, 100 - start).tolist() == expected[start:]
        assert draws.draws(key, start, 1).tolist() == expected[start : start + 1]
    assert draws.draws(key, 3, 0).size == 0


def test_draws_are_uniform_and_those_of_other_keys_others():
    found = [draws.draws(draws.stream(0, "a", name), 0, 1 << 16) for name in ("w", "v")]
    for drawn in found:
        counts = np.bincount(drawn >> 24, minlength=256)
        assert abs(counts - 256).max() < 6 * 16
        pairs = np.corrcoef(drawn[:-1].astype(float), drawn[1:].astype(float))[0, 1]
        assert abs(pairs) < 6 / 256
    assert np.count_nonzero(found[0] == found[1]) < 5


@pytest.mark.parametrize("alpha", [1e-9, -1e-9, 1e-12])
def test_results_just_beside_halfway_points_round_away_from_them(alpha):
    rng = np.random.default_rng(0)
    base, model = (raw_weights("halfway", (500,), np.float32, rng) for _ in range(2))
    merged = base.astype(np.float64) + alpha * (model.astype(np.float64) - base)
    expected = [reference.nearest(x, "bfloat16") for x in merged.tolist()]
    for kernel in PACKAGES.values():
        cuts = plain.cut_units(base, model[None], 500, 0, 500)
        extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(500, np.uint16)
        kernel.merge_band(base, model[None], 500, cuts, np.empty(0), alpha, extent, out)
        assert floats(out) == expected


@st.composite
def masks(draw, n):
    """Return uint8 (n,), of which some are 1."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (rng.random(n) < draw(st.sampled_from([0.0, 0.01, 0.5, 1.0]))).astype(np.uint8)


OWN = st.sampled_from([0.0, -0.25, 1e-3, None])


@pytest.mark.parametrize("other", OTHERS)
class TestAPackageGivesTheBitsOfNumPys:
    """The contract of a package of kernels; `test_elections` and `test_terms` have the rest."""

    def test_it_offers_all_operations_in_files_of_the_same_names(self, other):
        for name in protocol.OPERATIONS:
            files = {getattr(package, name).__module__.split(".")[-1] for package in (plain, other)}
            assert callable(getattr(other, name)) and len(files) == 1

    @given(rows(least_models=1), st.data())
    def test_tally(self, other, it, data):
        base, models = it
        mine = data.draw(brackets(base, models))
        room = data.draw(st.sampled_from([0, 1, 7, base.size, 2 * base.size + 5]))
        chunk = data.draw(st.sampled_from([1, 3, 64, base.size + 5]))
        chunks = -(-base.size // chunk)
        out = []
        for kernel in (plain, other):
            counts = np.ones((chunks, len(models), 4), np.int64)
            sizes = np.ones((chunks, len(models)), np.int64)
            kept = np.zeros((len(models), room), np.uint32)
            kernel.tally(base, models, chunk, mine, counts, sizes, kept)
            out.append((counts, sizes, kept))
        assert all(same(a, b) for a, b in zip(*out, strict=True))

    @given(
        rows(sizes=st.sampled_from([512, 1024, 3 * 700, 2 * 2048, 2 * 2500]), least_models=1),
        st.integers(1, 3),
        st.data(),
    )
    @settings(max_examples=150)
    def test_cut_units(self, other, it, number, data):
        base, models = it
        unit = base.size // number if base.size % number == 0 else base.size
        first, last = data.draw(st.integers(0, unit)), data.draw(st.integers(0, unit))
        found = [kernel.cut_units(base, models, unit, first, last) for kernel in (plain, other)]
        assert same(*found)

    @given(rows(), st.data())
    @settings(max_examples=100)
    def test_add_band(self, other, it, data):
        base, models = it
        n, number = base.size, len(models)
        unit, cuts = data.draw(cuts_of_units(base, models))
        pair = data.draw(st.booleans())
        weights = data.draw(
            st.lists(st.sampled_from([1.0, 0.3, -2.5]), min_size=number, max_size=9)
        )
        weights = np.array(weights[:number] if pair else [1.0] * number)
        out = []
        for kernel in (plain, other):
            total, rest = np.zeros(n), np.zeros(n if pair else 0)
            inexact = np.zeros(n if pair else 0, np.uint8)
            kernel.add_band(base, models, unit, cuts, weights, total, rest, inexact)
            out.append((total + 0.0, rest + 0.0, inexact))
        assert all(same(a, b) for a, b in zip(*out, strict=True))

    @given(rows(), st.data())
    def test_add_drawn(self, other, it, data):
        base, models = it
        n, number = base.size, len(models)
        keys, start, limits = data.draw(drawn_rows(models))
        pair = data.draw(st.booleans())
        weights = np.array([0.3, -1.0, 7.5])[:number] if pair else np.ones(number)
        out = []
        for kernel in (plain, other):
            total, rest = np.zeros(n), np.zeros(n if pair else 0)
            inexact, kept = np.zeros(n if pair else 0, np.uint8), np.zeros(number, np.int64)
            sums = total, rest, inexact, kept
            kernel.add_drawn(base, models, keys, start, limits, weights, *sums)
            out.append((total + 0.0, rest + 0.0, inexact, kept))
        assert all(same(a, b) for a, b in zip(*out, strict=True))

    @given(rows(), st.data(), ALPHAS, WEIGHTS, RAWS)
    @settings(max_examples=200)
    def test_merge_band(self, other, it, data, alpha, weights, dtype):
        base, models = it
        unit, cuts = data.draw(cuts_of_units(base, models))
        settings_ = base, models, unit, cuts, np.array(weights[: len(models)]), alpha
        assert_same_merge(
            base, dtype, other, lambda kernel, *out: kernel.merge_band(*settings_, *out)
        )

    @given(rows(), st.data(), ALPHAS, WEIGHTS, RAWS)
    @settings(max_examples=200)
    def test_merge_drawn(self, other, it, data, alpha, weights, dtype):
        base, models = it
        drawn = data.draw(drawn_rows(models))
        settings_ = base, models, *drawn, np.array(weights[: len(models)]), alpha

        def run(kernel, extent, out):
            kept = np.zeros(len(models), np.int64)
            return *kernel.merge_drawn(*settings_, extent, out, kept), kept.tolist()

        assert_same_merge(base, dtype, other, run)

    @given(rows(), OWN, ALPHAS, RAWS)
    @settings(max_examples=200)
    def test_combine(self, other, it, own, factor, dtype):
        base, models = it
        weights = np.array([1 / 3, -1.0, 1e9][: len(models) if own is not None else 0])
        settings_ = base, models, own or 0.0, weights, factor

        def run(kernel, extent, out):
            squares, inexact = kernel.combine(*settings_, extent, out)
            if inexact:  # and then what was written does not hold
                out[:] = 0
            return squares, inexact

        assert_same_merge(base, dtype, other, run)

    @given(rows(), st.data(), ALPHAS, WEIGHTS, RAWS)
    @settings(max_examples=150)
    def test_merge_kept(self, other, it, data, alpha, weights, dtype):
        base, models = it
        if base.dtype != dtype:
            return
        number = len(models)
        at = [np.flatnonzero(data.draw(masks(base.size))).astype(np.uint32) for _ in models]
        ends = np.concatenate([[0], np.cumsum([one.size for one in at])]).astype(np.int64)
        positions = np.concatenate([*at, np.empty(0, np.uint32)])
        values = np.concatenate(
            [*(m[mine] for m, mine in zip(models, at, strict=True)), np.empty(0, dtype)]
        )
        half = data.draw(st.integers(0, number))
        given_ = np.array(weights[:number])
        before = np.zeros((2, base.size if half else 0))

        def run(kernel, extent, out):
            carried, squares, wrong = before.copy(), 0.0, False
            for part, last in ((slice(0, half), False), (slice(half, number), True)):
                if last or half:
                    mine = slice(ends[part.start], ends[part.stop])
                    own = ends[part.start : part.stop + 1] - ends[part.start]
                    kept = own, positions[mine], values[mine]
                    settings_ = given_[part] if given_.size else given_, alpha, extent, out
                    squares, odd = kernel.merge_kept(base, *kept, *settings_, carried, last)
                    wrong |= bool(odd)
            return squares, wrong, carried.tolist()

        assert_same_merge(base, dtype, other, run)

    @given(rows(least_models=1), st.data())
    def test_what_a_task_file_keeps(self, other, it, data):
        base, models = it
        unit, cuts = data.draw(cuts_of_units(base, models))
        found = []
        for kernel in (plain, other):
            banded, all_ = np.zeros(base.size, np.uint8), np.zeros(base.size, np.uint8)
            kernel.keep_band(base, models[0], unit, cuts[:, 0], banded)
            cut = banded.copy()
            kernel.changed(base, models[0], cut, True)
            kernel.changed(base, models[0], all_, False)
            found.append((banded, cut, all_, np.array(kernel.zeros(models[0]), np.int64)))
        assert all(same(a, b) for a, b in zip(*found, strict=True))

    @given(st.data(), st.integers(1, 3000), st.sampled_from([0, 1, -1]))
    def test_positions(self, other, data, n, more):
        keep = data.draw(masks(n))
        at = np.flatnonzero(keep).astype(np.uint32)
        bitmap = np.packbits(keep, bitorder="little")
        gaps = np.diff(at.astype(np.int64), prepend=-1) - 1
        start = data.draw(st.integers(0, n - 1))
        for kernel in (plain, other):
            out = np.zeros(max(0, at.size + more), np.uint32)
            fits = out.size >= at.size
            assert kernel.from_bitmap(bitmap, n, out) == (at.size if fits else -1)
            assert not fits or (out[: at.size] == at).all()
            out[:] = 0
            if not gaps.size or gaps.max() < 255:
                found = kernel.from_gaps(gaps.astype(np.uint8), n, out)
                assert found == (at.size if fits else -1)
                assert not fits or (out[: at.size] == at).all()
            filled = np.zeros(min(100, n - start), np.uint16)
            kernel.fill(filled, start, at, np.ones(at.size, np.uint16))
            assert filled.tolist() == keep[start : start + filled.size].tolist()

    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    @pytest.mark.parametrize("number", [0, 1, 15, 16, 33, 400])
    @pytest.mark.parametrize("rare", [0.0, 0.01, 0.3])
    def test_gaps_short_and_long(self, other, kind, number, rare):
        rng, longest = np.random.default_rng(number), constants.LONG[np.dtype(kind).itemsize]
        gaps = np.where(rng.random(number) < rare, longest, rng.integers(0, 25, number))
        gaps[-1:] = 7
        many = int(np.count_nonzero(gaps != longest))
        last = int((gaps + (gaps != longest)).sum()) - 1
        for n, room in ((last + 1, many), (last, many), (last + 1, max(0, many - 1))):
            found = []
            for kernel in (plain, other):
                out = np.full(room + 20, 9, np.uint32)
                found.append((kernel.from_gaps(gaps.astype(kind), max(0, n), out[:room]), out))
            (told, first), (also, second) = found
            assert told == also and (told == -1 or (first == second).all())
            assert (second[room:] == 9).all()

    @pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 2000])
    @pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
    def test_places(self, other, n, share):
        rng = np.random.default_rng(n)
        keep = (rng.random(n) < share) * rng.integers(1, 256, n)
        where = np.flatnonzero(keep).tolist()
        for kernel in (plain, other):
            for more in (-1, 0, 1, 100):
                out = np.full(max(0, len(where) + more) + 70, 9, np.uint32)
                room = out[: out.size - 70]
                found = kernel.places(keep.astype(np.uint8), room)
                fits = room.size >= len(where)
                assert found == (len(where) if fits else -1) and (out[room.size :] == 9).all()
                assert not fits or room[: len(where)].tolist() == where
            for kind in (np.uint16, np.float32):
                values, out = rng.integers(0, 999, n).astype(kind), np.zeros(len(where), kind)
                kernel.take(values, np.array(where, np.uint32), out)
                assert out.tolist() == values[where].tolist()

    @given(rows(least_models=1))
    def test_squares(self, other, it):
        base, models = it
        with np.errstate(all="ignore"):
            found, mine = other.squares(base, models[0]), plain.squares(base, models[0])
        assert same(np.array(found), np.array(mine))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64", "float8_e4m3fn"])
    @pytest.mark.parametrize("n", [0, 1, 100])
    def test_planes(self, other, dtype, n):
        raw = np.random.default_rng(n).integers(0, 256, (n, reference.DTYPES[dtype].itemsize))
        values = raw.astype(np.uint8).reshape(-1).view(reference.DTYPES[dtype])
        for kernel in (plain, other):
            out = np.zeros(n, values.dtype)
            kernel.from_planes([*np.ascontiguousarray(raw.T.astype(np.uint8))], out)
            assert out.tobytes() == values.tobytes()

    @given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 40), st.data())
    def test_product(self, other, rows_, rank, n, data):
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        left = rng.standard_normal((rows_, rank)).astype(np.float32)
        right = rng.standard_normal((rank, n)).astype(np.float32)
        start = data.draw(st.integers(0, rows_ * n - 1))
        found = [np.empty(data.draw(st.just(rows_ * n - start))) for _ in range(2)]
        for kernel, out in zip((plain, other), found, strict=True):
            kernel.product(left, right, start, out)
        assert same(*found)

    @given(st.lists(st.floats(), max_size=20), st.sampled_from(["BF16", "F32", "F16", "F64"]))
    def test_round_to(self, other, values, dtype):
        merged = np.array(values, np.float64)
        with np.errstate(all="ignore"):
            assert same(plain.round_to(merged, dtype), other.round_to(merged, dtype))

    @given(rows(), st.data())
    def test_merge_and_what_it_takes_for_zeros(self, other, it, data):
        base, models = it
        total = np.round(plain.widen(models).astype(np.float64).sum(axis=0), 1)
        rest = data.draw(st.sampled_from([np.empty(0), total * 2.0**-53]))
        merged = [kernel.merge(base, total, rest, -0.5) for kernel in (plain, other)]
        assert same(*merged)
        for kernel, one in zip((plain, other), merged, strict=True):
            kernel.sign_zeros(one, np.flatnonzero(one == 0), base, models, total)
        assert same(*merged)


@given(rows(sizes=st.integers(1, 30), least_models=1), OWN)
def test_combine_is_a_sum_rounded_once_and_added_to_the_base(it, own):
    base, models = it
    weights = [1.0 if own is None else (1 / 3, -1.0, 0.7)[t] for t in range(len(models))]
    given_ = np.array([] if own is None else weights)
    extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.empty(base.size, np.float32)
    _, inexact = plain.combine(base, models, own or 0.0, given_, 0.5, extent, out)
    smallest, largest = bounds.extent_of(extent, base.dtype)
    if own is None:
        inexact = not exactness.provably_exact(smallest, largest, len(models), 23)
    if inexact:
        return
    columns = [floats(model) for model in models]
    for i, x in enumerate(floats(base)):
        terms = [(own or 0.0) * x]
        for column, weight in zip(columns, weights, strict=True):
            terms.append(weight * (column[i] - x))
        step = 0.5 * math.fsum(terms)
        assert floats(out)[i] == reference.nearest(x + step if step else x, "float32")


@given(rows(sizes=st.sampled_from([1, 255, 257, 2049, constants.PART - 1, constants.PART + 300])))
@settings(max_examples=60)
def test_products(it):
    base, models = it
    shape = (-(-base.size // constants.PART), 1 + len(models), 1 + len(models))
    wide = plain.widen(base).astype(np.float64)
    flat = np.concatenate([wide[None], plain.widen(models).astype(np.float64) - wide])
    found = []
    for kernel in PACKAGES.values():
        found += [np.empty(shape), np.empty(shape)]
        kernel.products(base, models, found[-2])
        kernel.row_products(flat, found[-1])
    assert all(same(found[0], other) for other in found[1:])
    gram, size = found[0].sum(axis=0), np.abs(flat) @ np.abs(flat).T
    assert (np.abs(gram - flat @ flat.T) <= 1e-12 * size).all()


@given(rows(), st.sampled_from([None, math.nan, math.inf, -math.inf]), st.data())
def test_extent(it, special, data):
    base, models = it
    raw = np.vstack([base[None], models])
    if special is not None:
        at = data.draw(st.integers(0, raw.size - 1))
        bits = np.array([special], np.float32).view(np.uint32)
        kind = bits.view(np.float32) if raw.dtype == np.float32 else (bits >> 16).astype(np.uint16)
        raw.reshape(-1)[at] = kind[0]
    found = plain.extent(raw)
    assert {repr(kernel.extent(raw)) for kernel in PACKAGES.values()} == {repr(found)}
    magnitudes = np.abs(plain.widen(raw).astype(np.float64))
    if special is not None:
        assert not math.isfinite(found[1])
    elif magnitudes.any():
        assert found == (magnitudes[magnitudes > 0].min(), magnitudes.max())
    else:
        assert found == (math.inf, 0.0)


# --- rounding ----------------------------------------------------------------------------------

NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def all_of(dtype: str) -> np.ndarray:
    """Return every finite number of an 8- or 16-bit format, ascending, without -0."""
    kind = reference.DTYPES[dtype]
    bits = np.arange(1 << (8 * kind.itemsize), dtype=np.uint64).astype(f"u{kind.itemsize}")
    with np.errstate(invalid="ignore"):
        values = bits.view(kind).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def rounded_by_search(x: float, grid: list[float], even: list[bool]) -> float:
    """Return the nearest of all numbers of a format, on a tie the even one, with Fractions."""
    after = bisect.bisect_left(grid, x)
    near = [k for k in (after - 1, after) if 0 <= k < len(grid)]
    distance = {k: abs(Fraction(x) - Fraction(grid[k])) for k in near}
    least = min(distance.values())
    best = [k for k in near if distance[k] == least]
    return grid[next((k for k in best if even[k]), best[0]) if len(best) > 1 else best[0]]


@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_the_reference_rounds_to_the_nearest_of_all_numbers(name):
    dtype = NAMES[name]
    grid = all_of(dtype).tolist()
    bits = np.array(grid).astype(reference.DTYPES[dtype])
    even = (bits.view(f"u{bits.itemsize}") % 2 == 0).tolist()
    rng = np.random.default_rng(1)
    at = rng.integers(0, len(grid) - 1, 200)
    for k in at.tolist():
        a, b = grid[k], grid[k + 1]
        half = (a + b) / 2
        for x in (a, half, math.nextafter(half, a), math.nextafter(half, b), a + (b - a) / 3):
            assert reference.nearest(x, dtype) == rounded_by_search(x, grid, even)


@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_round_to_is_right_at_and_beside_every_halfway_point(name):
    dtype = NAMES[name]
    grid = all_of(dtype)
    grid = np.concatenate([grid[:200], grid[-200:], grid[np.abs(grid) < grid[-1] * 2.0**-12]])
    grid = np.unique(np.concatenate([grid, -grid, [0.0]]))
    half = (grid[:-1] + grid[1:]) / 2
    single = np.float64(2.0**-30) * half  # what a first rounding to float32 would hide
    tested = np.concatenate(
        [grid, half, np.nextafter(half, -np.inf), np.nextafter(half, np.inf), half + single]
    )
    tested = np.concatenate([tested, half - single, [-0.0]])
    limit = reference.FORMATS[dtype][2]
    tested = tested[np.abs(tested) <= limit]
    expected = [reference.nearest(x, dtype) for x in tested.tolist()]
    rounded = plain.round_to(tested, name)
    assert rounded.dtype == reference.DTYPES[dtype]
    assert same(rounded.astype(np.float64), np.array(expected))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=20), st.data())
@settings(max_examples=150)
@example([2.0**-150, 2.0**-149 * 1.5, 3.4028235677973366e38, -0.0, 5e-324], None)
def test_round_to_is_nearest_even_for_every_dtype(values, data):
    for name, dtype in NAMES.items():
        limit = reference.FORMATS[dtype][2]
        half_ulp = limit * 2.0 ** -(reference.FORMATS[dtype][0] + 1)
        expected = [reference.nearest(x, dtype) for x in values]
        rounded = plain.round_to(np.array(values, np.float64), name).astype(np.float64).tolist()
        for x, found, right in zip(values, rounded, expected, strict=True):
            if math.isinf(right):
                # Formats without an infinity give NaN; either is refused on writing.
                assert not math.isfinite(found) and abs(x) > limit + half_ulp / 2
            else:
                assert math.copysign(1, found) == math.copysign(1, right) and found == right


@pytest.mark.parametrize("name", NAMES)
def test_round_to_overflows_exactly_where_the_format_ends(name):
    if name == "F64":
        return
    precision, _, limit = reference.FORMATS[NAMES[name]]
    half = math.ldexp(1, math.frexp(limit)[1] - precision - 1)
    inside, outside = math.nextafter(limit + half, 0), math.nextafter(limit + half, math.inf)
    found = plain.round_to(np.array([inside, -inside, outside, -outside]), name).astype(np.float64)
    assert found[:2].tolist() == [limit, -limit]
    assert not np.isfinite(found[2:]).any()


# --- sums --------------------------------------------------------------------------------------

PRECISE = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn"}


@given(st.sampled_from(sorted(PRECISE)), st.integers(1, 9), st.integers(0, 60), st.data())
@settings(max_examples=200)
def test_provably_exact_never_claims_wrongly(name, models, spread, data):
    kind = PRECISE[name]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scale = np.float64(2.0) ** rng.integers(-spread, spread + 1, (models + 1, 50))
    values = rng.standard_normal((models + 1, 50)) * scale
    values *= rng.integers(0, 4, values.shape) > 0
    with np.errstate(over="ignore"):
        values = values.astype(reference.DTYPES[kind]).astype(np.float64)
    values[~np.isfinite(values)] = 1.0
    nonzero = np.abs(values[values != 0])
    if not nonzero.size:
        return
    precision = exactness.PRECISION[name]
    if exactness.provably_exact(nonzero.min(), nonzero.max(), models, precision):
        for column in values.T.tolist():
            base, *others = column
            total, exact = 0.0, Fraction(0)
            for x in others:
                assert Fraction(x - base) == Fraction(x) - Fraction(base)
                total += x - base
                exact += Fraction(x) - Fraction(base)
                assert Fraction(total) == exact


def test_provably_exact_is_tight_where_it_matters():
    assert exactness.provably_exact(math.inf, 0.0, 200, 23)
    assert exactness.provably_exact(2.0**-26, 1.9, 1, 23) and not exactness.provably_exact(
        2.0**-30, 1.9, 1, 23
    )
    # bfloat16 weights from 1e-9 to 10 of 200 models need no pairs.
    assert exactness.provably_exact(1e-9, 10.0, 200, 7)
    # One more model than the last that fits may round: 2**29 - 1 of the largest, then the least.
    assert not exactness.provably_exact(1.0, 2.0**29, 2, 23)


def test_two_sum_is_exact_whatever_the_order():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(200) * 2.0 ** rng.integers(-60, 60, 200) for _ in range(2))
    total = a + b
    error = exact.two_sum(a, b, total)
    for x, y, s, e in zip(*(v.tolist() for v in (a, b, total, error)), strict=True):
        assert Fraction(x) + Fraction(y) == Fraction(s) + Fraction(e)


@given(
    st.sampled_from([np.uint32, np.uint64]),
    st.sampled_from(KINDS),
    st.integers(1, 6),
    st.integers(1, 3000),
    st.data(),
)
def test_brackets_hold_magnitudes_only(keys, kind, runs, n, data):
    rng = np.random.default_rng(n)
    wide = np.float32 if keys == np.uint32 else np.float64
    sample = np.abs(raw_weights(kind, (runs, 64), np.float32, rng).astype(wide)).view(keys)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))
    low, low_end, high, high_end = survey.bracket(
        sample, first, last, n, plain, 3.0, USUAL.room
    ).tolist()
    # The kernels compare keys as numbers, so an end above infinity would be a NaN.
    infinity = int(np.array(np.inf, wide).view(keys))
    assert low <= low_end <= infinity if first else (low, low_end) == survey.NOTHING
    assert high <= high_end <= infinity if last < n else (high, high_end) == survey.NOTHING


@given(st.integers(1, 10**9))
def test_samples_lie_within_the_unit(n):
    starts = survey.sample_starts(n, USUAL.run)
    assert starts and starts[0] >= 0 and starts[-1] + min(USUAL.run, n) <= n
