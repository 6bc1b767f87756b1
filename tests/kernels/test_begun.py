"""What is merged before its ranks are known, and the operations that finding ranks consists of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_rows import ALPHAS, KINDS, OTHERS, RAWS, WEIGHTS, brackets, raw_weights, rows, same

from breadcrumbs.kernels import bounds
from breadcrumbs.kernels import numpy as plain

others = pytest.mark.parametrize("other", OTHERS)


class Begun:
    """What `begin_band` makes of some rows; space: for how many entries in doubt."""

    def __init__(self, kernels, base, models, chunk, keys, weights, alpha, dtype, space):
        chunks = -(-base.size // chunk)
        self.extent, self.out = np.array(bounds.NO_EXTENT, np.uint32), np.zeros(base.size, dtype)
        self.counts = np.zeros((chunks, len(models), 4), np.int64)
        self.doubts = np.zeros(chunks, np.int64)
        self.where = np.zeros(space, np.uint32)
        self.columns = np.zeros((1 + len(models), space), base.dtype)
        with np.errstate(over="ignore"):
            self.squares, self.inexact, self.number = kernels.begin_band(
                base,
                models,
                chunk,
                keys,
                np.array(weights, np.float64),
                alpha,
                self.extent,
                self.out,
                self.counts,
                self.doubts,
                self.where,
                self.columns,
            )

    def arrays(self):
        extent = np.array(bounds.extent_of(self.extent, self.columns.dtype))
        return extent, self.out, self.counts, self.doubts, self.where, self.columns


@others
@given(rows(least_models=1), RAWS, WEIGHTS, ALPHAS, st.data())
def test_what_is_begun_is_numpys_bit_for_bit(other, it, dtype, weights, alpha, data):
    base, models = it
    keys = data.draw(brackets(base, models))
    chunk = data.draw(st.sampled_from([1, 7, 2048, base.size, base.size + 1]))
    space = data.draw(st.sampled_from([0, 3, base.size]))
    given_ = base, models, chunk, keys, weights[: len(models)], alpha, dtype, space
    one, two = Begun(plain, *given_), Begun(other, *given_)
    for mine, its in zip(one.arrays(), two.arrays(), strict=True):
        assert same(mine, its)
    assert (one.inexact, one.number) == (two.inexact, two.number)
    assert np.isclose(one.squares, two.squares, rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("weights", [(), (0.5, 2.0, -1.0)])
@pytest.mark.parametrize("kind", ["usual", "ties", "zeros", "constant"])
@pytest.mark.parametrize("kernels", [pytest.param(plain, id="plain"), *OTHERS])
def test_begun_and_ended_is_merged(kernels, kind, weights, dtype):
    """Whatever brackets hold the keys of the ranks, ending what is in doubt gives the merge."""
    rng = np.random.default_rng(len(kind))
    n, chunk, alpha = 5000, 1200, 0.7
    base, models = (
        raw_weights("usual", (n,), dtype, rng),
        raw_weights(kind, (3, n), dtype, rng),
    )
    models[0, : n // 2] = base[: n // 2]
    first, last = 4000, 4900
    cuts = plain.cut_units(base, models, n, first, last)
    keys = plain.magnitudes(base, models)
    chunks = [slice(at, min(n, at + chunk)) for at in range(0, n, chunk)]
    of_chunks = np.repeat(cuts, len(chunks), axis=0)
    for t in range(len(models)):  # ties are dealt to chunks in order
        for column, end in ((0, 1), (2, 3)):
            left = cuts[0, t, end]
            for i, run in enumerate(chunks):
                ties = int(np.count_nonzero(keys[t, run] == cuts[0, t, column]))
                of_chunks[i, t, end] = min(left, ties)
                left -= of_chunks[i, t, end]
    extent, whole = np.array(bounds.NO_EXTENT, np.uint32), np.zeros(n, dtype)
    plain.merge_band(base, models, n, cuts, np.array(weights), alpha, extent, whole)
    for spread in (0, 1, 1 << 16, 1 << 24):
        bracket = np.stack(
            [cuts[0, :, 0] - spread, cuts[0, :, 0] + spread, cuts[0, :, 2] - spread, cuts[0, :, 2]]
        ).T.clip(0, 0x7F800000)
        given_ = base, models, chunk, bracket.astype(np.uint32), weights, alpha, dtype, n
        begun = Begun(kernels, *given_)
        patch = np.zeros(begun.number, dtype)
        columns = np.ascontiguousarray(begun.columns[:, : begun.number])
        by = begun.doubts, of_chunks, np.array(weights), alpha, begun.extent, patch
        kernels.merge_band(columns[0], columns[1:], *by)
        begun.out[begun.where[: begun.number]] = patch
        assert same(begun.out, whole)


@others
@given(rows(least_models=1), st.data())
def test_runs_of_any_size_are_tallied_as_numpy_does(other, it, data):
    base, models = it
    keys = data.draw(brackets(base, models))
    edges = sorted(data.draw(st.lists(st.integers(0, base.size), max_size=4)))
    runs = np.diff([0, *edges, base.size])
    results = []
    for kernels in (plain, other):
        counts = np.zeros((len(runs), len(models), 4), np.int64)
        sizes = np.zeros(counts.shape[:2], np.int64)
        kept = np.zeros((len(models), data.draw(st.just(base.size // 2))), np.uint32)
        kernels.tally(base, models, runs, keys, counts, sizes, kept)
        results.append((counts, sizes, kept))
    for mine, its in zip(*results, strict=True):
        assert same(mine, its)


@others
@given(st.sampled_from(KINDS), st.integers(1, 5000), st.data())
def test_a_key_has_its_rank_wherever_the_search_begins(other, kind, n, data):
    rng = np.random.default_rng(n)
    keys = plain.magnitudes(*(raw_weights(kind, (n,), np.float32, rng) for _ in range(2)))
    rank = data.draw(st.sampled_from(sorted({1, (n + 1) // 2, max(1, n - 1), n})))
    hint = data.draw(st.sampled_from([0, 1, 0x7F7FFFFF, 0x7FFFFFFF, int(keys[0])]))
    assert other.key_of_rank(keys, rank, hint) == np.sort(keys)[rank - 1]


@others
@given(st.sampled_from(KINDS), st.lists(st.integers(0, 300), max_size=5), st.data())
def test_runs_are_counted_as_numpy_does(other, kind, sizes, data):
    rng = np.random.default_rng(sum(sizes))
    keys = np.abs(raw_weights(kind, (sum(sizes) + 1,), np.float32, rng)).view(np.uint32)
    sizes = np.array(sizes, np.int64)
    starts = np.cumsum(sizes) - sizes
    low, key = sorted(data.draw(st.tuples(*[st.sampled_from([0, *keys.tolist()])] * 2)))
    found = [it.count_runs(keys, starts, sizes, low, key) for it in (plain, other)]
    for mine, its in zip(*found, strict=True):
        assert same(mine, its)


@others
@given(rows(least_models=1), st.booleans())
def test_lengths_are_numpys_bit_for_bit(other, it, alike):
    base, models = it
    rng = np.random.default_rng(base.size)
    weights = rng.standard_normal(len(models))
    by = weights if alike else 2 * weights
    merged = rng.standard_normal(base.size).astype(np.float32)
    found = [np.ones(3 + len(models)) for _ in range(2)]
    with np.errstate(over="ignore", invalid="ignore"):
        for kernels, out in zip((plain, other), found, strict=True):
            kernels.lengths(base, models, weights, by, merged, out)
    assert same(*found) or not np.isfinite(found[0]).all()


def test_lengths_are_what_they_say():
    base, models = np.float32([1, 2, 3]), np.float32([[2, 2, 3], [1, 4, 3]])
    found = np.zeros(5)
    merged = np.float32([2, 3, 3])
    plain.lengths(base, models, np.array([1.0, 0.5]), np.array([1.0, 1.0]), merged, found)
    assert found.tolist() == [2.0, 5.0, 2.0, 1.0, 4.0]
