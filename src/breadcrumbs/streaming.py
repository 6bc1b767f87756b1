"""Exact numbers of values that stream by: the entry of a rank, and sums.

A stream is gone through as often as it takes; memory does not grow with its length. Entries rank by
(value, position), so the number before a cut is exact however many values are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

#: A pass tells so many more bits of a value, until no more than ROOM entries are left to look at.
BITS = 16
ROOM = 1 << 16
#: Passes of `select` at most, without and with the place of a cut.
VALUES, PLACES = 64 // BITS, 64 // BITS + 1

#: Yields (position of the first column, values (rows, n)) for all columns, in order.
Columns = Iterator[tuple[int, np.ndarray]]


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
    """What a pass finds out about the entries that a search is among."""

    counts: np.ndarray | None
    keys: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)

    def take(self, start: int, keys: np.ndarray, shift: int, prefix: int) -> None:
        inside = slice(None) if shift == 64 else np.flatnonzero(keys >> np.uint64(shift) == prefix)
        mine = keys[inside]
        if self.counts is None:
            self.keys.append(mine.copy())
            self.places.append(start + np.arange(keys.size)[inside])
            return
        bins = (mine >> np.uint64(shift - BITS)) & np.uint64((1 << BITS) - 1)
        self.counts += np.bincount(bins.astype(np.intp), minlength=1 << BITS)


def select(
    columns: Callable[[], Columns],
    number: int,
    ranks: Sequence[Sequence[int]],
    places: bool = True,
) -> list[list[Cut]]:
    """Return the entries of ``ranks[row]`` of each row of ``number`` values, ranked from 0.

    columns: begins a pass. Values are float64 and no NaN; -0 is 0. Rank ``number`` gives the end.
    places: whether positions are wanted; without them they are 0, and a pass may be spared.
    """
    searches = [[_Search(row, rank, number) for rank in mine] for row, mine in enumerate(ranks)]
    flat = [search for mine in searches for search in mine]
    for search in flat:
        if search.rank >= number:
            search.cut = Cut(math.inf, number)
    while some := [search for search in flat if search.cut is None]:
        ties = [search for search in some if search.shift == 0]
        probes = {
            search.among: _Probe(
                None if search.number <= ROOM else np.zeros(1 << BITS, np.int64),
            )
            for search in some
            if search.shift
        }
        rows = {search.row for search in some}
        for start, values in columns():
            keys = {row: _keys(values[row]) for row in rows}
            for (row, shift, prefix), probe in probes.items():
                probe.take(start, keys[row], shift, prefix)
            for search in ties:
                _count_ties(search, start, keys[search.row])
        for search in some:
            if search.among in probes:
                _advance(search, probes[search.among], places)
    return [[search.cut for search in mine if search.cut] for mine in searches]


def _advance(search: _Search, probe: _Probe, places: bool) -> None:
    if probe.counts is None:
        keys, where = np.concatenate(probe.keys), np.concatenate(probe.places)
        at = np.argsort(keys, kind="stable")[search.rank]  # they come in the order of positions
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


def _count_ties(search: _Search, start: int, keys: np.ndarray) -> None:
    """Find the place of the entry ``search.rank`` of those whose key is the prefix."""
    if search.cut is not None:
        return
    equal = np.flatnonzero(keys == search.prefix)
    if search.rank < equal.size:
        search.cut = Cut(_value(np.uint64(search.prefix)), start + int(equal[search.rank]))
    search.rank -= equal.size


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
