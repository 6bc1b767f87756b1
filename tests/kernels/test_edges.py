"""What kernels in C have to mind: empty, strided and unaligned arrays, rooms that end, and NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from raw_rows import OTHERS, raw_weights

from breadcrumbs.kernels import bounds, constants
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.kernels.native import flips as native_flips
from breadcrumbs.kernels.numpy import flips as plain_flips

RAWS = [np.uint16, np.float32]
MARK = 0xA5  # of bytes that nothing may write to


def all_of(kernel, base, models, start: int = 5) -> dict[str, list]:
    """Return what the operations make of raw weights, by their names."""
    number, n = models.shape
    dtype, found = base.dtype, {}
    unit = max(n, 1)
    cuts = np.tile(np.array([1 << 20, 1, 0x7F000000, 3]), (1, number, 1))
    keys = np.arange(7, 7 + number, dtype=np.uint64)
    limits = np.full(number, 1 << 31, np.uint32)
    limits[:1] = constants.ALL
    weights, none = np.linspace(-1, 2, number), np.empty(0)
    drawn, everything = (keys, start, limits), (keys, start, limits[:0])

    def into(name: str, operation: str, *given, more=()) -> None:
        extent, out = np.array(bounds.NO_EXTENT, np.uint32), np.zeros(n, dtype)
        steps, kept = np.zeros(n), np.zeros(number, np.int64)
        results = {
            "merge_band": (extent, out),
            "merge_drawn": (extent, out, kept),
            "combine": (extent, out),
            "elect_band": (extent, out, steps),
            "elect_drawn": (extent, out, steps, kept),
            "elect_weighted": (extent, out, steps, kept),
        }[operation]
        told = getattr(kernel, operation)(base, models, *given, *results, *more)
        squares, *counts = told if isinstance(told, tuple) else (told,)
        counts = counts[:2]  # the squares of the other majority are sums as well
        largest = bounds.extent_of(extent, base.dtype)[1]
        found[name] = [float(f"{squares:.9e}"), *counts, steps + 0.0, kept, out, largest]

    for w in (none, weights):
        tag, how, m = f" weighted {w.size > 0}", (w, 0.3), n if w.size else 0
        into("merge_band" + tag, "merge_band", unit, cuts, *how)
        into("merge_drawn" + tag, "merge_drawn", *drawn, *how)
        into("merge_all" + tag, "merge_drawn", *everything, *how)
        into("combine" + tag, "combine", w.size / 8, *how)
        total, rest, inexact = np.zeros(n), np.zeros(m), np.zeros(m, np.uint8)
        ones, kept = w if w.size else np.ones(number), np.zeros(number, np.int64)
        kernel.add_band(base, models, unit, cuts, ones, total, rest, inexact)
        kernel.add_drawn(base, models, *drawn, ones, total, rest, inexact, kept)
        if w.size:
            kernel.settle(total, rest)
        merged = kernel.merge(base, total, rest, 0.5)
        found["parts" + tag] = [total + 0.0, rest + 0.0, inexact, kept, merged]
    for kind in (constants.MEAN, constants.SUM, constants.LARGEST):
        where, other = np.zeros(n, np.uint32), np.zeros(n, dtype)
        how, shares = (kind, -1), np.arange(1 << number) / 7
        how_weighted = *how, weights, shares, 0.3
        into(f"elect_band {kind}", "elect_band", unit, cuts, *how, 0.3, more=(where, other))
        into(f"elect_drawn {kind}", "elect_drawn", *drawn, *how, 0.3)
        into(f"elect_cut {kind}", "elect_weighted", unit, cuts, drawn, *how_weighted)
        into(f"elect_weighted {kind}", "elect_weighted", unit, cuts[:0], drawn, *how_weighted)
        found[f"undecided {kind}"] = [where, other]
    taus, kept = np.zeros(n), np.zeros(n, np.bool_)
    if n:
        chances = np.linspace(0.1, 1, n)
        kernel.keep_by_rank(base, models[0], n, keys[0], start, chances, True, taus, kept)
    banded, changed, cut = (np.ones(n, np.uint8) for _ in range(3))
    kernel.keep_band(base, models[0], unit, cuts[:, 0], banded)
    kernel.changed(base, models[0], changed, False)
    kernel.changed(base, models[0], cut, True)
    found["kept"] = [taus, kept, banded, changed, cut, kernel.zeros(models[0])]
    parts = np.zeros((-(-n // constants.PART), 1 + number, 1 + number))
    wide = plain.widen(models).astype(np.float64)
    alike = np.zeros((len(parts), number, number))
    kernel.products(base, models, parts)
    kernel.row_products(wide, alike)
    found["products"] = [parts, alike]
    if not np.isfinite(wide).all():
        return found  # they are refused before terms are made of them
    pair = kernel.exact_pair(wide)
    found["terms"] = [kernel.exact_sum(wide), *pair, kernel.exact_sum(wide, weights)]
    found["terms"] += [kernel.elected(wide, weights, kind, 1, False) + 0.0 for kind in range(3)]
    if n:
        found["terms"].append(kernel.add_step(wide[0], wide[-1]))
        cuts = kernel.cut_units(base, models, n, n // 3, n - n // 4)
        found["ranks"] = [kernel.extent(models), cuts]
    return found


def assert_alike(one: dict[str, list], other: dict[str, list]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        for a, b in zip(one[name], other[name], strict=True):
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), name
            else:
                assert repr(a) == repr(b), name


def weights_of(dtype, n: int, number: int, kind: str = "ties") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + number)
    base = raw_weights(kind, (n,), dtype, rng)
    return base, np.array([raw_weights(kind, (n,), dtype, rng) for _ in range(number)])


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("dtype", RAWS)
class TestAllOperations:
    """Each operation gives NumPy's bits."""

    @pytest.mark.parametrize("n", [0, 1, 511, 513, 1024, 1025, 2049])
    def test_on_few_entries_and_at_the_edges_of_blocks(self, other, dtype, n):
        base, models = weights_of(dtype, n, 2)
        assert_alike(all_of(plain, base, models), all_of(other, base, models))

    @pytest.mark.parametrize("number", [1, 5, 8])
    def test_on_few_and_many_models(self, other, dtype, number):
        base, models = weights_of(dtype, constants.PART + 300, number, "close")
        assert_alike(all_of(plain, base, models), all_of(other, base, models))

    def test_from_a_draw_far_along_the_stream(self, other, dtype):
        base, models = weights_of(dtype, 1100, 2, "usual")
        for start in (2**32 - 3, 2**33 + 1, 2**40):
            given = base, models, start
            assert_alike(all_of(plain, *given), all_of(other, *given))

    @pytest.mark.parametrize("kind", ["denormal", "zeros", "huge"])
    def test_on_numbers_at_the_ends_of_the_range(self, other, dtype, kind):
        base, models = weights_of(dtype, 1500, 3, kind)
        with np.errstate(over="ignore", invalid="ignore"):
            assert_alike(all_of(plain, base, models), all_of(other, base, models))

    def test_on_rows_that_do_not_follow_one_another(self, other, dtype):
        base, models = weights_of(dtype, 1500, 3)
        size = models.itemsize
        expected = all_of(plain, base, models)
        apart = np.zeros((3, 1777), dtype)
        apart[:, 7:1507] = models
        steps, turned = np.zeros((3, 3000), dtype), models[::-1].copy()
        steps[:, ::2] = models
        odd = np.frombuffer(b"\0" + models.tobytes(), np.uint8)[1:].view(dtype).reshape(3, 1500)
        across = np.zeros((3, 1500 * size + 1), np.uint8)
        across[:, :-1] = models.view(np.uint8)
        between = np.ndarray((3, 1500), dtype, across, 0, (1500 * size + 1, size))
        lone = np.frombuffer(b"\0" + base.tobytes(), np.uint8)[1:].view(dtype)
        twice = np.repeat(base, 2)[::2]
        for rows in (
            apart[:, 7:1507],
            steps[:, ::2],
            turned[::-1],
            odd,
            between,
            models.T.copy().T,
        ):
            assert_alike(expected, all_of(other, base, rows))
        for one in (lone, twice):
            assert_alike(expected, all_of(other, one, models))

    @pytest.mark.parametrize("odd", [math.nan, -math.nan, math.inf, -math.inf])
    def test_nan_and_infinity_show(self, other, dtype, odd):
        raw = np.array([odd], np.float32)
        raw = (raw.view(np.uint32) >> 16).astype(np.uint16) if dtype == np.uint16 else raw
        for place in (0, 1):
            base, models = weights_of(dtype, 1500, 2, "usual")
            (base if place == 0 else models[0])[700] = raw[0]
            with np.errstate(all="ignore"):
                found = [all_of(kernel, base, models) for kernel in (plain, other)]
            for name in found[0]:
                if name.startswith(("merge_", "elect", "combine")):
                    assert not math.isfinite(found[1][name][-1])
                    # Whatever comes of that entry is refused; others do not change.
                    a, b = (np.delete(one[name][-2], 700) for one in found)
                    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("other", OTHERS)
def test_nan_of_any_payload_rounds_to_nan(other):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 64, 5000, np.uint64) | np.uint64(0x7FF0000000000001)
    bits[:2] = 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF
    odd = bits.view(np.float64)
    assert np.isnan(odd).all()
    with np.errstate(invalid="ignore"):
        for dtype in ("BF16", "F32"):
            merged = np.where(np.arange(5000) % 7 > 0, odd, 0.5)
            found = other.round_to(merged, dtype)
            assert found.tobytes() == plain.round_to(merged, dtype).tobytes()


def guarded(n: int, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return an array, and all bytes around it."""
    size = np.dtype(dtype).itemsize
    whole = np.full(n * size + 256, MARK, np.uint8)
    return whole[128 : 128 + n * size].view(dtype), whole


def assert_untouched(whole: np.ndarray) -> None:
    assert (whole[:128] == MARK).all() and (whole[-128:] == MARK).all()


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("dtype", RAWS)
@pytest.mark.parametrize("n", [1, 2047, 2049])
def test_nothing_is_written_beyond_outputs(other, dtype, n):
    base, models = weights_of(dtype, n, 2)
    results = []
    for kernel in (plain, other):
        (out, a), (steps, b), (where, c), (turned, d), (keep, e) = (
            guarded(n, dtype),
            guarded(n, np.float64),
            guarded(n // 50, np.uint32),
            guarded(n // 50, dtype),
            guarded(n, np.uint8),
        )
        extent = np.array(bounds.NO_EXTENT, np.uint32)
        cuts = plain.cut_units(base, models, n, 0, n)
        how = n, cuts, constants.MEAN, 1, 0.3, extent, out, steps, where, turned
        _, votes, undecided, _ = kernel.elect_band(base, models, *how)
        assert n == 1 or undecided > where.size  # as much as there is room for
        kernel.keep_band(base, models[0], n, cuts[:, 0], keep)
        told = a.tobytes(), (steps + 0.0).tobytes(), c.tobytes(), d.tobytes(), e.tobytes()
        results.append((votes, undecided, *told))
        for whole in (a, b, c, d, e):
            assert_untouched(whole)
        values, whole = guarded(n, np.float64)
        kept, also = guarded(n, np.bool_)
        given = n, np.uint64(3), 1, np.full(n, 0.5), False, values, kept
        kernel.keep_by_rank(base, models[0], *given)
        assert_untouched(whole)
        assert_untouched(also)
        drawn = np.arange(2, dtype=np.uint64), 1, np.full((2, n), 0.5)
        how = np.ones(2, np.uint8), np.ones(2), constants.SUM, 1, False, 0.3, extent
        (out, a), (steps, b) = guarded(n, dtype), guarded(n, np.float64)
        kernel.merge_by_rank(base, models, n, drawn, *how, out, steps, np.zeros(2, np.int64))
        assert_untouched(a)
        assert_untouched(b)
    assert results[0] == results[1]


@pytest.mark.parametrize("other", OTHERS)
class TestTaskFilesThatLie:
    """Positions are read from files; whatever they say, nothing else is written to."""

    @pytest.mark.parametrize("n", [1, 7, 64, 1000])
    @pytest.mark.parametrize("less", [0, 1, 5])
    def test_bitmaps_and_gaps_that_mean_too_much(self, other, n, less):
        room = max(0, n - less)
        for more in (0, 1, 9):
            bitmap = np.packbits(np.ones(n + more, np.uint8), bitorder="little")
            for gaps in (np.zeros(n + more, np.uint8), np.zeros(n + more, np.uint16)):
                for read, raw in (("from_bitmap", bitmap), ("from_gaps", gaps)):
                    out, whole = guarded(room, np.uint32)
                    found = getattr(other, read)(raw, n, out)
                    assert found == (n if not less and not more else -1)
                    assert_untouched(whole)

    @pytest.mark.parametrize("size", [1, 2])
    def test_gaps_that_are_long(self, other, size):
        kind, long = np.dtype(f"u{size}"), constants.LONG[size]
        out, whole = guarded(3, np.uint32)
        honest = np.array([long, 0, 3, long, long, 1], kind)
        assert other.from_gaps(honest, 4 * long, out) == plain.from_gaps(honest, 4 * long, out) == 3
        assert out.tolist() == [long, long + 4, 3 * long + 6]
        for raw, n in (([0, long], 4 * long), ([long, 0], long), ([long] * 9, 99 * long), ([], 5)):
            found = [k.from_gaps(np.array(raw, kind), n, out) for k in (plain, other)]
            assert found[0] == found[1] == (-1 if raw else 0)
        assert_untouched(whole)

    def test_positions_in_disorder(self, other):
        n, rng = 3000, np.random.default_rng(0)
        positions = rng.integers(0, 2**32, 500, np.uint32)
        positions[::3] = rng.integers(0, n, positions[::3].size)
        values = rng.integers(0, 1 << 15, 500).astype(np.uint16)
        for start in (9, 1000, 5000):
            out, whole = guarded(n, np.uint16)
            other.fill(out, start, positions, values)
            falling = np.array([start, start + 1, start - 9], np.uint32)
            other.fill(out, start, falling, values[:3])
            assert_untouched(whole)
        base, (out, whole) = np.zeros(n, np.uint16), guarded(n, np.uint16)
        extent, ends = np.array(bounds.NO_EXTENT, np.uint32), np.array([0, 200, 500])
        for weights in (np.empty(0), np.ones(2)):
            how = weights, 1.0, extent, out, np.empty((2, 0)), True
            other.merge_kept(base, ends, positions, values, *how)
            assert_untouched(whole)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 65, 70001])
def test_flips_are_numpys_and_undone_by_a_second_time(size, n):
    rng, kind = np.random.default_rng(n), np.dtype(f"u{size}")
    weights, flips = (rng.integers(0, 256, n * size, np.uint8).view(kind) for _ in range(2))
    packed = rng.integers(0, 256, -(-n // 8), np.uint8)
    places = np.flatnonzero(rng.random(n) < 0.3)
    found = []
    for module in (plain_flips, native_flips):
        mine, whole = guarded(n, kind)
        mine[:] = weights
        module.flip_masked(mine, flips, packed)
        once = mine.copy()
        assert (once == np.where(np.unpackbits(packed, count=n), weights ^ flips, weights)).all()
        module.flip_masked(mine, flips, packed)
        assert (mine == weights).all()
        for width in (np.uint32, np.int64):
            module.flip_at(mine, places.astype(width), flips[places])
            assert n < 7 or (mine != weights).any()
            again = mine.copy()
            module.flip_at(mine, places.astype(width), flips[places])
            assert (mine == weights).all()
        assert_untouched(whole)
        found.append((once.tobytes(), again.tobytes()))
    assert found[0] == found[1]


def test_flips_beyond_the_weights_are_an_error():
    weights, whole = guarded(9, np.uint16)
    for module in (plain_flips, native_flips):
        with pytest.raises(IndexError):
            module.flip_at(weights, np.array([9], np.uint32), np.array([1], np.uint16))
    assert_untouched(whole)
