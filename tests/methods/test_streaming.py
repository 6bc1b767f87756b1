"""Ranks and sums of values that stream by are those of all values at once."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from breadcrumbs.methods import folds
from breadcrumbs.methods.aggregates import Entries, Extent
from breadcrumbs.methods.folds import Cut, Total, select

VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 5e-324, -5e-324, 1e300]),
    st.floats(allow_nan=False),
)


def selected(values: np.ndarray, chunk: int, seen: list[int], *asked, **more):
    """Return what `select` finds in values whose columns come in chunks, last ones first.

    The sample is the first of them alone, so it misleads. seen: gets an entry for each pass over
    all of them.
    """
    search = select(lambda entries: entries.taus, *asked, **more)
    found = None
    while True:
        try:
            fold = search.send(found)
        except StopIteration as done:
            return done.value
        seen += [0] if fold.at is None and fold.some is None else []
        found = fold.empty()
        for start in reversed(range(0, values.shape[1], chunk)):
            rows = values[:, start : start + chunk]
            if fold.at in (None, start) and not (fold.some and start):
                entries = Entries(rows, rows != 0, np.ones(len(rows)), start=start)
                found = fold.join(found, fold.scan(entries))


def ranked(row: np.ndarray) -> list[tuple[float, int]]:
    return sorted((float(value), place) for place, value in enumerate(row))


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60), st.integers(1, 7), st.sampled_from([0, 1, 5, 99]))
def test_a_rank_is_that_of_sorted_values(values, chunk, few):
    rows = np.array([values, values[::-1]])
    n, seen = len(values), []
    ranks, extent = [[0, n // 3, n], [n - 1, n // 2]], Extent(n, 2, few)
    found = selected(rows, chunk, seen, extent, ranks)
    assert len(seen) <= folds.PLACES
    only = selected(rows, chunk, [], extent, ranks, places=False)
    for row, mine, cuts, bare in zip(rows, ranks, found, only, strict=True):
        for rank, cut, value in zip(mine, cuts, bare, strict=True):
            assert (cut.value, cut.place) == ([*ranked(row), (math.inf, n)])[rank]
            assert value.value == cut.value
            before = np.concatenate([cut.before(i, row[i : i + chunk]) for i in range(0, n, chunk)])
            assert np.flatnonzero(before).tolist() == sorted(p for _, p in ranked(row)[:rank])


def test_values_alone_take_no_pass_for_places():
    values, seen, extent = np.zeros((1, 50)), [], Extent(50, 1, few=3)
    values[0, :2] = -1, 1  # so that a histogram follows
    assert selected(values, 7, seen, extent, [[20]], places=False) == [[Cut(0.0, 0)]]
    assert len(seen) == folds.VALUES - 1
    assert selected(values, 7, seen, extent, [[20]]) == [[Cut(0.0, 21)]]
    assert len(seen) == folds.VALUES - 1 + folds.PLACES - 1


def test_a_sample_that_is_right_spares_passes_and_one_that_misleads_costs_one():
    rng = np.random.default_rng(0)
    values, seen = rng.standard_normal((2, 3000)), []
    extent = Extent(3000, 2, few=1500)
    expected = [sorted(row.tolist())[1000] for row in values]
    found = selected(values, 1000, seen, extent, [[1000], [1000]])
    assert [cuts[0].value for cuts in found] == expected and len(seen) == 1
    values[:, :1000] += 9
    expected = [sorted(row.tolist())[1000] for row in values]
    found = selected(values, 1000, seen, extent, [[1000], [1000]])
    assert [cuts[0].value for cuts in found] == expected and 2 < len(seen) <= 1 + folds.PLACES


def test_values_that_may_be_left_out_change_no_rank():
    rng = np.random.default_rng(1)
    values = rng.standard_normal((2, 2000))

    def above(entries, bounds):
        rows = [np.flatnonzero(row >= at) for row, at in zip(entries.taus, bounds, strict=True)]
        more = [np.union1d(row, [0]).astype(np.uint32) for row in rows]
        return [(at, row[at]) for at, row in zip(more, entries.taus, strict=True)]

    for few in (1, 100, 9000):
        asked = Extent(2000, 2, few), [[1800, 1999], [1700]]
        expected = selected(values, 300, [], *asked)
        assert selected(values, 300, [], *asked, above=above) == expected


def test_few_entries_take_one_pass():
    seen: list[int] = []
    selected(np.ones((2, 50)), 8, seen, Extent(50, 2), [[3], [4, 5]])
    assert len(seen) == 1


@given(st.lists(st.floats(-1e300, 1e300), max_size=40), st.integers(1, 9))
def test_a_total_is_the_exact_sum_rounded_once(values, chunk):
    total = Total()
    for start in range(0, len(values), chunk):
        total.add(np.array(values[start : start + chunk]))
    assert float(total) == math.fsum(values)


def test_a_total_of_the_smallest_and_of_opposite_numbers():
    total = Total()
    total.add(np.array([5e-324, 1e308, -1e308, 5e-324]))
    assert float(total) == 1e-323
    total.add(np.zeros(0))
    assert float(total) == 1e-323
