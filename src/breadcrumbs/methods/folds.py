"""Exact numbers of the whole model, found in passes over its entries: ranks, and sums.

A pass is a `Fold`: entries are scanned in any order, in any thread, and what is found is joined.
Memory does not grow with the size of the model. Entries rank by (value, position), so the number
before a cut is exact however many values are equal.

A rank is bracketed by a sample, which tells no more than how long it takes: one pass counts what is
below the bracket and collects what is inside. Where the sample misled, or more is inside than is to
be held, passes of histograms narrow the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from breadcrumbs.kernels import choose
from breadcrumbs.methods.aggregates import Entries, Extent, Fold

#: A histogram tells so many more bits of a value, until few entries are left to look at.
BITS = 16
#: Passes of `select` at most, without and with the place of a cut: one more if the sample misled.
VALUES, PLACES = 64 // BITS + 1, 64 // BITS + 2
#: Of so many entries that may be held, one is not to be: a sample saves holding the others.
SPARED = 16
#: One entry of so many is sampled, of larger models no more than are held.
SAMPLED = 32
#: Standard errors of the sample that a bracket reaches to each side.
MARGIN = 3.0

#: Of each row, or None where a pass does not ask for it: where values are, and the values.
Rows = Sequence[tuple[np.ndarray | None, np.ndarray] | None]


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


#: The key between those of the numbers below and above 0.
_MINUS_0 = (1 << 63) - 1


def _key(value: float) -> int:
    return int(_keys(np.array([value]))[0])


@dataclass
class _Search:
    """The search for one rank, from 0, among the entries of a row whose keys are low to high.

    number: how many these are, about.
    """

    row: int
    rank: int
    number: int
    low: int
    high: int
    cut: Cut | None = None

    def look(self, low: int, high: int, number: int) -> None:
        """Go on among the entries of other keys. None has that of -0, which as a number is 0."""
        self.low, self.high = low + (low == _MINUS_0), high - (high == _MINUS_0)
        self.number = number


@dataclass
class _Probe:
    """What a pass finds out about the entries of a search: how many are below them, how many they
    are, and, where these are few, their values and places, or how many have which of the next bits,
    or, where they tie, how many there are from which start on."""

    below: int = 0
    inside: int = 0
    counts: np.ndarray | None = None
    values: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    ties: list[tuple[int, int]] = field(default_factory=list)

    def add(self, other: _Probe, most: int) -> None:
        """Add another. most: values to hold; of more, none are."""
        self.below += other.below
        self.inside += other.inside
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.values += other.values
        self.places += other.places
        self.ties += other.ties
        if self.values and self.inside > most:
            self.values, self.places = [], []


def select(
    values: Callable[[Entries], np.ndarray],
    extent: Extent,
    ranks: Sequence[Sequence[int]],
    places: bool = True,
    above: Callable[[Entries, Sequence[float]], Rows] | None = None,
) -> Generator[Fold, Any, list[list[Cut]]]:
    """Return the entries of ``ranks[row]`` of each row of values, ranked from 0.

    values: entries -> their values (rows, n), float64 and no NaN; -0 is 0. Rank ``extent.size``
    gives the end. places: whether positions are wanted; without them they are 0, and a pass may be
    spared. above: (entries, a bound for each row) -> of each row the places and values of its
    entries but for some that are less than the bound, where that takes less than all values. To be
    used as ``cuts = yield from select(...)`` in `Elementwise.prepare`.
    """
    number, least, most = extent.size, _key(-math.inf), _key(math.inf)
    searches = [
        [_Search(row, rank, number, least, most) for rank in mine] for row, mine in enumerate(ranks)
    ]
    flat = [search for mine in searches for search in mine]
    for search in flat:
        if search.rank >= number:
            search.cut = Cut(math.inf, number)
    some = [search for search in flat if search.cut is None]
    if len(some) * number > extent.few // SPARED:
        yield from _bracket(values, extent, some)
    while some := [search for search in flat if search.cut is None]:
        all_fit = sum(search.number for search in some) <= extent.few
        few = extent.few if all_fit else max(1, extent.few // len(some))
        looks = [(search.row, *_way(search, few)) for search in some]
        scan = _looking(values, above, looks, places)
        join = _joining([2 * search.number + few for search in some])
        probes = yield Fold(scan, join, lambda looks=looks: [_Probe() for _ in looks])
        for search, probe in zip(some, probes, strict=True):
            at = _advance(search, probe, places, number)
            if at is not None:
                start, before = at
                found = yield Fold(
                    _tied(values, search.row, search.low), list.__add__, list, at=start
                )
                position = np.sort(np.concatenate(found))[before]
                search.cut = Cut(_value(np.uint64(search.low)), int(position))
    return [[search.cut for search in mine if search.cut] for mine in searches]


# --- a sample ---------------------------------------------------------------------------------


def _bracket(
    values: Callable[[Entries], np.ndarray], extent: Extent, searches: Sequence[_Search]
) -> Generator[Fold, Any, None]:
    """Set the searches to brackets that their ranks lie in, as a sample has it."""
    rows = sorted({search.row for search in searches})
    most = max(1, extent.few // len(rows))

    def scan(entries: Entries) -> list[tuple[int, np.ndarray]]:
        return [(entries.start, values(entries)[rows] + 0.0)]

    runs = yield Fold(scan, list.__add__, list, some=max(SAMPLED, extent.size // most))
    runs.sort(key=lambda run: run[0])
    sizes = np.array([run.shape[1] for _, run in runs])
    if not sizes.sum():
        return
    for row in rows:
        mine = [run[rows.index(row)] for _, run in runs]
        ordered = np.sort(np.concatenate(mine))
        for search in searches:
            if search.row == row:
                _set(search, mine, sizes, ordered, extent.size)


def _set(
    search: _Search, runs: Sequence[np.ndarray], sizes: np.ndarray, ordered: np.ndarray, n: int
) -> None:
    """Set a search to a bracket. runs: of a sample, whose spread gives the standard error."""
    place = min(ordered.size - 1, search.rank * ordered.size // n)
    below = np.array([np.count_nonzero(run < ordered[place]) for run in runs]) / sizes
    error = below.std() / math.sqrt(len(runs)) if len(runs) > 1 else 0.05
    width = math.ceil(min(MARGIN * error, 0.05) * ordered.size) + 4
    low = ordered[place - width] if place >= width else -math.inf
    high = ordered[place + width] if place + width < ordered.size else math.inf
    inside = np.searchsorted(ordered, high, "right") - np.searchsorted(ordered, low)
    search.look(_key(low), _key(high), int(inside) * n // ordered.size)


# --- a pass -------------------------------------------------------------------------------------

#: How a pass looks at a search: its bounds, and a shift for a histogram; or it collects, or counts.
_COLLECT, _COUNT = -1, -2
_Look = tuple[int, int, int, int]


def _way(search: _Search, few: int) -> tuple[int, int, int]:
    if search.low == search.high:
        return search.low, search.high, _COUNT
    if search.number <= few:
        return search.low, search.high, _COLLECT
    return search.low, search.high, _shift(search)


def _shift(search: _Search) -> int:
    """Return by how many bits keys are shifted to make bins of a histogram."""
    return max(0, (search.high - search.low).bit_length() - BITS)


def _looking(
    values: Callable[[Entries], np.ndarray],
    above: Callable[[Entries, Sequence[float]], Rows] | None,
    looks: Sequence[_Look],
    places: bool,
) -> Callable[[Entries], list[_Probe]]:
    """Return what finds the probes of looks in some entries."""
    rows = {row for row, *_ in looks}
    bounds = [(_value(np.uint64(low)), _value(np.uint64(high))) for _, low, high, _ in looks]
    lows = [
        min((low for (row, *_), (low, _) in zip(looks, bounds, strict=True) if row == mine))
        if mine in rows
        else math.inf
        for mine in range(max(rows) + 1)
    ]

    def scan(entries: Entries) -> list[_Probe]:
        size = entries.taus.shape[1]
        if above is None:
            every: Rows = [(None, row) for row in values(entries)]
        else:
            every = above(entries, lows)
        found = []
        for (row, first, _, way), (low, high) in zip(looks, bounds, strict=True):
            mine = every[row]
            assert mine is not None
            at, row_values = mine
            below, kept, where = entries.kernels.sift(row_values, low, high)
            below += size - row_values.size
            found.append(_probe(entries.start, first, way, below, kept, where, at, places))
        return found

    return scan


def _probe(
    start: int,
    first: int,
    way: int,
    below: int,
    kept: np.ndarray,
    where: np.ndarray,
    at: np.ndarray | None,
    places: bool,
) -> _Probe:
    probe = _Probe(below, kept.size)
    if way == _COUNT:
        probe.ties = [(start, kept.size)] if kept.size else []
    elif way >= 0:
        bins = (_keys(kept) - np.uint64(first)) >> np.uint64(way)
        probe.counts = np.bincount(bins.astype(np.intp), minlength=1 << BITS)
    elif kept.size:
        probe.values = [kept.copy()]
        if places:
            probe.places = [start + (where if at is None else at[where]).astype(np.int64)]
    return probe


def _joining(most: Sequence[int]) -> Callable[[list[_Probe], list[_Probe]], list[_Probe]]:
    """Return what joins probes. most: values that each may hold."""

    def join(known: list[_Probe], found: list[_Probe]) -> list[_Probe]:
        for mine, other, room in zip(known, found, most, strict=True):
            mine.add(other, room)
        return known

    return join


def _tied(
    values: Callable[[Entries], np.ndarray], row: int, key: int
) -> Callable[[Entries], list[np.ndarray]]:
    """Return what finds the places of the entries that tie."""
    value = _value(np.uint64(key))

    def scan(entries: Entries) -> list[np.ndarray]:
        return [entries.start + np.flatnonzero(values(entries)[row] == value)]

    return scan


def _advance(search: _Search, probe: _Probe, places: bool, n: int) -> tuple[int, int] | None:
    """Set a search to what a pass has found.

    Where only the place of a tie is missing, return where the entries start that hold it, and how
    many of theirs come before.
    """
    rank, below, inside = search.rank - probe.below, probe.below, probe.inside
    if rank < 0:  # the sample misled
        search.look(_key(-math.inf), search.low - 1, below)
    elif rank >= inside:
        search.look(search.high + 1, _key(math.inf), n - below - inside)
    elif search.low == search.high:
        if places:
            return _holding(probe.ties, rank)
        search.cut = Cut(_value(np.uint64(search.low)), 0)
    elif probe.counts is not None:
        shift, upto = _shift(search), np.cumsum(probe.counts)
        bin_ = int(np.searchsorted(upto, rank, side="right"))
        low = search.low + (bin_ << shift)
        search.look(low, min(search.high, low + (1 << shift) - 1), int(probe.counts[bin_]))
        if search.low == search.high and not places:
            search.cut = Cut(_value(np.uint64(search.low)), 0)
    elif probe.values:
        found = np.concatenate(probe.values)
        value = np.partition(found, rank)[rank]
        place = 0
        if places:
            equal = np.sort(np.concatenate(probe.places)[found == value])
            place = int(equal[rank - np.count_nonzero(found < value)])
        search.cut = Cut(float(value) + 0.0, place)
    else:  # too many to hold
        search.number = inside
    return None


def _holding(ties: Sequence[tuple[int, int]], rank: int) -> tuple[int, int]:
    """Return where the entries start that hold the tie of that rank, and how many come before."""
    for start, tied in sorted(ties):
        if rank < tied:
            return start, rank
        rank -= tied
    raise IndexError(rank)


def _keys(values: np.ndarray) -> np.ndarray:
    """Return unsigned integers in the order of the values."""
    bits = (values + 0.0).view(np.uint64)  # of -0 and 0 too
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top)


def _value(key: np.uint64) -> float:
    """Return the value of a key; that of -0, which none has, is 0 too."""
    top = np.uint64(1 << 63)
    bits = np.array([key ^ top if key & top else ~key], np.uint64)
    return float(bits.view(np.float64)[0])


#: 2 to the power -UNIT is the unit of `Total`: `Entrywise.add_units` says so.
_HALF, _UNIT, _ROWS = 26, 1126, 2100


def _no_units() -> np.ndarray:
    return np.zeros((_ROWS, 2), np.int64)


@dataclass(eq=False)
class Total:
    """The exact sum of any number of finite float64, so that their order does not matter."""

    _units: np.ndarray = field(default_factory=_no_units)

    def add(self, values: np.ndarray) -> None:
        """Add all of some values; fewer than 2**35 in all."""
        choose().add_units(values.reshape(-1), self._units)

    def __iadd__(self, other: Total) -> Total:
        self._units += other._units
        return self

    def __float__(self) -> float:
        """Return the sum, rounded once."""
        found = 0
        for row in np.flatnonzero(self._units.any(axis=1)).tolist():
            upper, lower = self._units[row].tolist()
            found += ((upper << _HALF) + lower) << row
        return found / (1 << _UNIT)
