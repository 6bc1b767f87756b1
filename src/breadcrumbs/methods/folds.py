"""Exact numbers of the whole model, found in passes over its entries: ranks, and sums.

A pass is a `Fold`: entries are scanned in any order, in any thread, and what is found is joined.
Memory does not grow with the size of the model. Entries rank by (value, position), so the number
before a cut is exact however many values are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breadcrumbs.methods.aggregates import Entries, Extent, Fold

#: A pass tells so many more bits of a value, until few entries are left to look at.
BITS = 16
#: Passes of `select` at most, without and with the place of a cut.
VALUES, PLACES = 64 // BITS, 64 // BITS + 1


@dataclass(frozen=True)
class Cut:
    """The entry of some rank: its value and its position."""

    value: float
    place: int

    def before(self, start: int, values: np.ndarray) -> np.ndarray:
        """Return which of the values (n,) from position ``start`` on rank before this entry."""
        mask = values < self.value
        equal = np.flatnonzero(values == self.value)
        mask[equal[: equal.searchsorted(self.place - start)]] = True
        return mask


@dataclass
class _Search:
    """The search for one rank, from 0, among ``number`` entries: those of a row that have
    ``prefix`` as the bits of their key from ``shift`` on."""

    row: int
    rank: int
    number: int
    shift: int = 64
    prefix: int = 0
    cut: Cut | None = None

    @property
    def among(self) -> tuple[int, int, int]:
        return self.row, self.shift, self.prefix


@dataclass
class _Probe:
    """What a pass finds out about the entries that a search is among: how many have which of the
    next bits, or, where few are left, their keys and places."""

    counts: np.ndarray | None
    keys: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)

    @staticmethod
    def of(start: int, keys: np.ndarray, among: tuple[int, int], few: bool) -> _Probe:
        """Return the probe of some entries. among: their shift and prefix."""
        shift, prefix = among
        inside = slice(None) if shift == 64 else np.flatnonzero(keys >> np.uint64(shift) == prefix)
        mine = keys[inside]
        if few:
            return _Probe(None, [mine.copy()], [start + np.arange(keys.size)[inside]])
        bins = (mine >> np.uint64(shift - BITS)) & np.uint64((1 << BITS) - 1)
        return _Probe(np.bincount(bins.astype(np.intp), minlength=1 << BITS))

    def add(self, other: _Probe) -> None:
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.keys += other.keys
        self.places += other.places


#: What a pass finds: probes, and how many entries tie in each row from which start on.
_Found = tuple[dict[tuple[int, int, int], _Probe], dict[tuple[int, int], list[tuple[int, int]]]]


def select(
    values: Callable[[Entries], np.ndarray],
    extent: Extent,
    ranks: Sequence[Sequence[int]],
    places: bool = True,
) -> Generator[Fold, Any, list[list[Cut]]]:
    """Return the entries of ``ranks[row]`` of each row of values, ranked from 0.

    values: entries -> their values (rows, n), float64 and no NaN; -0 is 0. Rank ``extent.size``
    gives the end. places: whether positions are wanted; without them they are 0, and a pass may be
    spared. To be used as ``cuts = yield from select(...)`` in `Elementwise.prepare`.
    """
    number = extent.size
    searches = [[_Search(row, rank, number) for rank in mine] for row, mine in enumerate(ranks)]
    flat = [search for mine in searches for search in mine]
    for search in flat:
        if search.rank >= number:
            search.cut = Cut(math.inf, number)
    while some := [search for search in flat if search.cut is None]:
        ties = [search for search in some if search.shift == 0]
        few = {search.among: search.number <= extent.few for search in some if search.shift}
        probes, equal = yield Fold(_scan(values, few, ties), _join, _nothing)
        for search in some:
            if search.shift:
                _advance(search, probes[search.among], places)
        for search in ties:
            start, before = _holding(equal[search.row, search.prefix], search.rank)
            at = yield Fold(_tied(values, search.row, search.prefix), list.__add__, list, start)
            position = np.sort(np.concatenate(at))[search.rank - before]
            search.cut = Cut(_value(np.uint64(search.prefix)), int(position))
    return [[search.cut for search in mine if search.cut] for mine in searches]


def _nothing() -> _Found:
    return {}, {}


def _scan(
    values: Callable[[Entries], np.ndarray],
    few: dict[tuple[int, int, int], bool],
    ties: Sequence[_Search],
) -> Callable[[Entries], _Found]:
    """Return what finds the probes of searches in some entries, and counts those that tie."""
    rows = {row for row, _, _ in few} | {search.row for search in ties}

    def scan(entries: Entries) -> _Found:
        mine = values(entries)
        keys = {row: _keys(mine[row]) for row in rows}
        probes = {
            (row, shift, prefix): _Probe.of(entries.start, keys[row], (shift, prefix), is_few)
            for (row, shift, prefix), is_few in few.items()
        }
        equal: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for search in ties:
            tied = int(np.count_nonzero(keys[search.row] == search.prefix))
            equal[search.row, search.prefix] = [(entries.start, tied)]
        return probes, equal

    return scan


def _join(known: _Found, found: _Found) -> _Found:
    for among, probe in found[0].items():
        if among in known[0]:
            known[0][among].add(probe)
        else:
            known[0][among] = probe
    for place, counts in found[1].items():
        known[1][place] = known[1].get(place, []) + counts
    return known


def _holding(equal: Sequence[tuple[int, int]], rank: int) -> tuple[int, int]:
    """Return where the entries start that hold the tie of that rank, and how many are before."""
    before = 0
    for start, tied in sorted(equal):
        if rank < before + tied:
            return start, before
        before += tied
    raise IndexError(rank)


def _tied(
    values: Callable[[Entries], np.ndarray], row: int, prefix: int
) -> Callable[[Entries], list[np.ndarray]]:
    """Return what finds the places of the entries that tie."""

    def scan(entries: Entries) -> list[np.ndarray]:
        return [entries.start + np.flatnonzero(_keys(values(entries)[row]) == prefix)]

    return scan


def _advance(search: _Search, probe: _Probe, places: bool) -> None:
    if probe.counts is None:
        keys, where = np.concatenate(probe.keys), np.concatenate(probe.places)
        at = np.lexsort((where, keys))[search.rank]
        search.cut = Cut(_value(np.uint64(keys[at])), int(where[at]) if places else 0)
        return
    upto = np.cumsum(probe.counts)
    bin_ = int(np.searchsorted(upto, search.rank, side="right"))
    search.number = int(probe.counts[bin_])
    search.rank -= int(upto[bin_]) - search.number
    search.shift -= BITS
    search.prefix = (search.prefix << BITS) + bin_
    if search.shift == 0 and not places:
        search.cut = Cut(_value(np.uint64(search.prefix)), 0)


def _keys(values: np.ndarray) -> np.ndarray:
    """Return unsigned integers in the order of the values."""
    bits = (values + 0.0).view(np.uint64)  # of -0 and 0 too
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top)


def _value(key: np.uint64) -> float:
    top = np.uint64(1 << 63)
    bits = np.array([key ^ top if key & top else ~key], np.uint64)
    return float(bits.view(np.float64)[0])


#: 2 to the power -UNIT is the last place of the smallest mantissa that `Total` adds.
_LEAST, _DIGITS, _HALF = 1073, 53, 26
_UNIT = _LEAST + _DIGITS


class Total:
    """The exact sum of any number of finite float64, so that their order does not matter."""

    def __init__(self) -> None:
        self._units = 0

    def add(self, values: np.ndarray) -> None:
        """Add all of some values, fewer than 2**26."""
        fractions, exponents = np.frexp(values.reshape(-1))
        whole = np.ldexp(fractions, _DIGITS).astype(np.int64)
        places = exponents.astype(np.intp) + _LEAST
        # Both halves of the mantissas add up exactly in float64.
        upper = np.bincount(places, weights=whole >> _HALF)
        lower = np.bincount(places, weights=whole & ((1 << _HALF) - 1))
        for place in np.flatnonzero((upper != 0) | (lower != 0)).tolist():
            self._units += ((int(upper[place]) << _HALF) + int(lower[place])) << place

    def __iadd__(self, other: Total) -> Total:
        self._units += other._units
        return self

    def __float__(self) -> float:
        """Return the sum, rounded once."""
        return self._units / (1 << _UNIT)
