"""The passes that find between which keys the entries of a unit stay, if a unit is no chunk.

A sample, the counting of every chunk, and what follows where the sample misled; see `tally`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.facts import Begun, Facts
from breadcrumbs.engine.passes import tally
from breadcrumbs.engine.passes.protocol import Looked, Looks, Pass
from breadcrumbs.engine.terms import Terms
from breadcrumbs.kernels.bounds import NO_EXTENT
from breadcrumbs.plan.units import Job, Segment

#: Bits that one pass of a bisection tells.
BITS = 11
#: Models of which a pass merges at once what is in no doubt, and the largest share of entries that
#: may be in doubt: with more it costs less to read the segments again.
BEGUN = 8
MOST_DOUBTS = 0.25


class Unit:
    """A job whose cuts are looked for: its segments, how they are read, what is known of them."""

    def __init__(self, context: Context, job: Job, fresh: bool = False):
        self.context, self.job, self.sizes = context, job, job.sizes
        tensors = context.plan.tensors
        self.parts = {p.index: Terms(context, job, tensors[p.index]) for p in job.pieces}
        self.begins = fresh and context.begins > 0 and all(map(_begins, self.parts.values()))
        rows = None if self.begins else min(job.rows, 1 + self.sizes.group)
        self.segments = list(job.segments(rows))
        #: Whether one segment is all, also to write: then the rows of all models are read, once.
        self.once = len(self.segments) == len(list(job.segments())) == 1
        self.n = sum(piece.stop - piece.start for piece in job.pieces)
        self.keys = np.dtype(np.uint64 if job.dtype == np.float64 else np.uint32)
        self.kernels = self.parts[job.pieces[0].index].kernels
        #: How many entries each chunk has.
        self.entries = np.array(
            [
                min(job.chunk, segment.stop - start)
                for segment in self.segments
                for start in range(segment.start, segment.stop, job.chunk)
            ]
        )

    def rows(self, segment: Segment, group: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return raw rows of a segment: the base's, and the models' of ``group`` (G, n)."""
        part, n = self.parts[segment.index], segment.stop - segment.start
        read = part.who if self.once and len(part.who) <= self.sizes.fused else group
        tensors = self._tensors(segment, read)
        rows = self.context.space.load(tensors, segment.start, n, self.job.dtype)
        if part.careful:
            for start in range(0, n, self.job.chunk):
                stop = start + self.job.chunk
                part.check(rows[:, start:stop], slice(0, 0), segment.start + start)
        base, models = rows[0], rows[1:]
        if read == group:
            return base, models
        where = read.index(group[0])
        if read[where : where + len(group)] == group:
            return base, models[where : where + len(group)]
        return base, models[[read.index(t) for t in group]]

    def _tensors(self, segment: Segment, group: list[int]) -> list[Tensor]:
        """Return the base's tensor and the models', the base's again where one is absent."""
        tensor = self.parts[segment.index].tensor
        return [tensor.base, *(tensor.models[t] or tensor.base for t in group)]

    def sampled(self, models: list[int], margin: float) -> dict[int, Sampled]:
        """Return brackets of the two ranks for each model, and how many entries lie in them, about.

        All from a sample of runs. margin: standard errors that a bracket reaches.
        """
        run, group_size = min(self.sizes.run, self.n), self.sizes.group
        places = [self._locate(at, run) for at in tally.sample_starts(self.n, self.sizes.run)]
        result = {}
        for first in range(0, len(models), group_size):
            group = models[first : first + group_size]
            shape = (1 + len(group), len(places), run)
            rows = self.context.space.buffer("raw", shape, self.job.dtype)
            self._read_runs(places, group, rows)
            flat = rows.reshape(len(rows), -1)
            near = (0, 0)
            for t, keys in zip(group, self.kernels.magnitudes(flat[0], flat[1:]), strict=True):
                keys = keys.reshape(len(places), run)
                settings = self.kernels, margin, self.sizes.room, near
                found = tally.bracket(keys, *self.job.ranks[t], self.n, *settings)
                near = int(found[0]), int(found[2])
                result[t] = Sampled(found, *tally.inside(keys, found, self.n))
        return result

    def _read_runs(self, places: list, group: list[int], rows: np.ndarray) -> None:
        """Fill rows (1 + models of ``group``, runs, entries) with a run from each of the places."""
        run = rows.shape[2]
        if self.once:
            segment = self.segments[0]
            base, models = self.rows(segment, group)
            for i, (_, start) in enumerate(places):
                at = slice(start - segment.start, start - segment.start + run)
                rows[0, i], rows[1:, i] = base[at], models[:, at]
            return
        whole: dict[int, list[int]] = {}  # by tensor; of each these lie side by side
        for i, (segment, start) in enumerate(places):
            n = min(run, segment.stop - start)
            if n == run:
                whole.setdefault(segment.index, []).append(i)
                continue
            self.context.space.read(self._tensors(segment, group), start, rows[:, i, :n])
            # A piece shorter than a run counts several times; that only widens the bracket.
            rows[:, i, n:] = rows[:, i, np.arange(n, run) % n]
        for numbers in whole.values():
            tensors = self._tensors(places[numbers[0]][0], group)
            starts = [places[i][1] for i in numbers]
            self.context.space.read_runs(tensors, starts, rows[:, numbers[0] : numbers[-1] + 1])
        for i, (segment, start) in enumerate(places):
            if self.parts[segment.index].careful:
                n = min(run, segment.stop - start)
                self.parts[segment.index].check(rows[:, i, :n], slice(0, 0), start)

    def _locate(self, at: int, run: int) -> tuple[Segment, int]:
        """Return the segment and the entry of its tensor that entry ``at`` of the job is."""
        for segment in self.segments:
            size = segment.stop - segment.start
            if at < size:
                return segment, max(segment.start, min(segment.start + at, segment.stop - run))
            at -= size
        raise IndexError(at)


@dataclass
class Sampled:
    """The bracket of a model, how many keys are to be collected, and how many are inside it."""

    bracket: np.ndarray
    collected: float
    inside: float


class Search:
    """The search for the cuts of all models of a unit, some models at a time."""

    def __init__(self, unit: Unit):
        self.unit = unit
        self.waiting = sorted({t for part in unit.parts.values() for t in part.who})
        self.cuts = np.empty((len(unit.entries), len(unit.context.plan.models), 5), np.int64)
        #: Brackets of models that wait, and how many keys lie in them, about.
        self.sampled: dict[int, Sampled] = {}
        self.begun: dict[tuple[int, int], Begun] = {}
        self.tries = 0

    def next(self) -> Facts | Pass:
        """Return a pass for as many of the models as there is room for, or the cuts of all."""
        unit = self.unit
        if not self.waiting:
            return Facts(cuts={unit.job.unit_id: self.cuts}, begun=self.begun)
        self.tries = 0
        some = self.waiting[: BEGUN if unit.begins else unit.sizes.group]
        fresh = [t for t in some if t not in self.sampled]
        self.sampled |= self._sampled(fresh, tally.MARGINS[0]) if fresh else {}
        most = unit.sizes.budget / 2
        wide = [t for t in some if self.sampled[t].collected * unit.keys.itemsize > most]
        if wide:  # more keys lie in these brackets than are collected
            unit.begins = False
            return Narrowing(self, wide)
        collected = [self.sampled[t].collected for t in some]
        doubts = sum(self.sampled[t].inside for t in some) / unit.n
        fits = sum(collected) * unit.keys.itemsize <= unit.sizes.wave
        if unit.begins and fits and doubts <= MOST_DOUBTS:
            self.waiting.clear()
            return Beginning(self, {t: self.sampled.pop(t).bracket for t in some}, doubts)
        unit.begins = False
        some = some[: tally.wave(collected, unit.sizes)]
        del self.waiting[: len(some)]
        return Counting(self, {t: self.sampled.pop(t).bracket for t in some})

    def _sampled(self, models: list[int], margin: float) -> dict[int, Sampled]:
        return self.unit.context.once(lambda: self.unit.sampled(models, margin))

    def again(self, models: list[int]) -> Pass:
        """Return the next pass for models whose brackets misled."""
        self.unit.context.hold(-sum(begun.nbytes for begun in self.begun.values()))
        self.begun.clear()
        self.unit.begins = False
        self.tries += 1
        if self.tries < len(tally.MARGINS):
            found = self._sampled(models, tally.MARGINS[self.tries])
            return Counting(self, {t: one.bracket for t, one in found.items()})
        return Bisecting(self, models).begun()


def search(context: Context, job: Job, fresh: bool = False) -> Facts | Pass:
    """Return the first pass that finds the cuts of a job, or the cuts.

    fresh: whether all of its segments are to be merged, of which some may be begun.
    """
    return Search(Unit(context, job, fresh)).next()


def _begins(terms: Terms) -> bool:
    """Return whether a pass over a tensor can merge at once what its brackets leave no doubt of."""
    return (
        terms.linear
        and terms.fused
        and not terms.careful
        and 0 < len(terms.who) == terms.number <= BEGUN
        and all(first < last for first, last in terms.job.ranks)
    )


@dataclass(frozen=True)
class Item:
    """A segment, by number, and the models that are looked at together."""

    number: int
    models: tuple[int, ...]


class _Looking(Looks):
    """What the passes of a search have in common: they look at every segment of its unit."""

    def __init__(self, search: Search, models: list[int]):
        self.search, self.unit, self.models = search, search.unit, models

    def items(self) -> list[Item]:
        size = self.unit.sizes.group
        groups = [tuple(self.models[i : i + size]) for i in range(0, len(self.models), size)]
        return [Item(i, group) for i in range(len(self.unit.segments)) for group in groups]

    def looked(self, item: Item) -> Looked:
        segment = self.unit.segments[item.number]
        return segment.index, 0.0


class Counting(_Looking):
    """Counts the keys of each chunk below the brackets, and collects those inside."""

    def __init__(self, search: Search, brackets: dict[int, np.ndarray]):
        super().__init__(search, list(brackets))
        unit = search.unit
        given = len(unit.entries), unit.n, unit.sizes
        self.tallies = {t: tally.Tally.empty(bracket, *given) for t, bracket in brackets.items()}

    def scan(self, item: Item) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return counts (chunks, G, 4), sizes (chunks, G) and keys (G, room), as `Ranks.tally`."""
        unit, group = self.unit, list(item.models)
        segment, chunk = unit.segments[item.number], unit.job.chunk
        part, n = unit.parts[segment.index], segment.stop - segment.start
        base, models = unit.rows(segment, group)
        kept = unit.context.space.buffer("kept", (len(group), unit.sizes.room_of(n)), unit.keys)
        brackets = np.stack([self.tallies[t].bracket for t in group])
        counts = np.zeros((-(-n // chunk), len(group), 4), np.int64)
        sizes = np.zeros(counts.shape[:2], np.int64)
        part.kernels.tally(base, models, chunk, brackets, counts, sizes, kept)
        return counts, sizes, kept

    def sent(
        self, item: Item, part: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        counts, sizes, kept = part
        return counts, sizes, kept[:, : sizes.sum(axis=0).max(initial=0)].copy()

    def is_impossible(self, item: Item, part: tuple[np.ndarray, np.ndarray, np.ndarray]) -> bool:
        first, (counts, sizes, _) = self.unit.segments[item.number].first_chunk, part
        most = self.unit.entries[first : first + len(counts), None]
        wrong = (counts < 0) | (counts > most[..., None])
        return bool(wrong.any() or (sizes < 0).any() or (sizes > 2 * most).any())

    def join(self, item: Item, part: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        counts, sizes, kept = part
        first = self.unit.segments[item.number].first_chunk
        chunks = slice(first, first + len(counts))
        for row, t in enumerate(item.models):
            keys = kept[row, : min(sizes[:, row].sum(), kept.shape[1])]
            self.tallies[t].take(chunks, counts[:, row], sizes[:, row], keys)

    def looked(self, item: Item) -> Looked:
        segment = self.unit.segments[item.number]
        part = self.unit.parts[segment.index]
        share = (segment.stop - segment.start) / part.tensor.base.size
        return segment.index, share * len(item.models) / max(1, len(part.who))

    def end(self) -> Facts | Pass:
        unknown, unit = [], self.unit
        for t in self.models:
            mine, ranks = self.tallies.pop(t), unit.job.ranks[t]
            cuts = tally.cuts(mine, *ranks, unit.entries, unit.kernels)
            del mine  # before the next ones are made
            if cuts is None:
                unknown.append(t)
            else:
                self.search.cuts[:, t] = cuts
        return self.search.again(unknown) if unknown else self.search.next()


class Beginning(Counting):
    """Counts and collects, and merges at once what the brackets leave no doubt of."""

    def __init__(self, search: Search, brackets: dict[int, np.ndarray], doubts: float):
        super().__init__(search, brackets)
        self.brackets = np.stack(list(brackets.values()))
        #: Room for entries in doubt, as a share.
        self.space = 1.5 * doubts

    def items(self) -> list[Item]:
        return [Item(i, tuple(self.models)) for i in range(len(self.unit.segments))]

    def scan(self, item: Item) -> tuple:
        """Return what `Counting.scan` does, and the segment, if it is begun."""
        unit = self.unit
        segment, chunk = unit.segments[item.number], unit.job.chunk
        terms, n = unit.parts[segment.index], segment.stop - segment.start
        space = int(self.space * n) + unit.sizes.spare
        column = (1 + terms.number) * terms.dtype.itemsize
        size = n * terms.raw_buffer(0).itemsize + space * (4 + column)
        if not unit.context.hold(size):
            return *super().scan(item), None
        base, models = unit.rows(segment, list(item.models))
        number = len(item.models)
        counts, doubts = (
            np.zeros((-(-n // chunk), number, 4), np.int64),
            np.zeros(-(-n // chunk), np.int64),
        )
        where = unit.context.space.buffer("where", (space,), np.uint32)
        columns = unit.context.space.buffer("columns", (1 + number, space), terms.dtype)
        out, extent = np.empty(n, terms.raw_buffer(0).dtype), np.array(NO_EXTENT, np.uint32)
        settings = self.brackets, terms.unequal, terms.factor, extent, out
        squares, inexact, doubtful = unit.kernels.begin_band(
            base, models, chunk, *settings, counts, doubts, where, columns
        )
        if inexact or doubtful > space:
            unit.context.hold(-size)
            return *super().scan(item), None
        where, columns = where[:doubtful].copy(), columns[:, :doubtful].copy()
        kept = unit.context.space.buffer("kept", (number, unit.sizes.room_of(n)), unit.keys)
        equal, sizes = np.zeros_like(counts), np.zeros(counts.shape[:2], np.int64)
        unit.kernels.tally(columns[0], columns[1:], doubts, self.brackets, equal, sizes, kept)
        counts[..., 1::2] += equal[..., 1::2]
        begun = Begun(out, squares, extent, doubts, where, columns)
        unit.context.hold(begun.nbytes - size)
        return counts, sizes, kept, begun

    def join(self, item: Item, part: tuple) -> None:
        *looked, begun = part
        super().join(item, tuple(looked))
        if begun is not None:
            segment = self.unit.segments[item.number]
            self.search.begun[segment.index, segment.start] = begun


class Narrowing(_Looking):
    """Narrows brackets that hold more keys than memory is meant for, by histograms."""

    def __init__(self, search: Search, models: list[int]):
        super().__init__(search, models)
        self.found: dict[tuple[int, int], tally.Histogram] = {}
        for t in models:
            bracket = [int(key) for key in search.sampled[t].bracket]
            for end in (0, 1):
                low, stop = bracket[2 * end : 2 * end + 2]
                if low < stop and 0 < self.unit.job.ranks[t][end] < self.unit.n:
                    self.found[t, end] = tally.Histogram.empty(low, stop, self.unit.sizes.bins)

    def scan(self, item: Item) -> dict[tuple[int, int], tuple[int, np.ndarray]]:
        """Return of each histogram how many keys are below, and how many in each bin."""
        unit, models = self.unit, list(item.models)
        base, rows = unit.rows(unit.segments[item.number], models)
        result: dict[tuple[int, int], tuple[int, np.ndarray]] = {}
        for start in range(0, base.size, unit.job.chunk):
            run = slice(start, start + unit.job.chunk)
            keys = unit.kernels.magnitudes(base[run], rows[:, run])
            for (t, end), histogram in self.found.items():
                if t in models:
                    below, counts = histogram.count(keys[models.index(t)])
                    before = result.get((t, end), (0, 0))
                    result[t, end] = before[0] + below, before[1] + counts
        return result

    def added(
        self,
        one: dict[tuple[int, int], tuple[int, np.ndarray]],
        other: dict[tuple[int, int], tuple[int, np.ndarray]],
    ) -> dict[tuple[int, int], tuple[int, np.ndarray]]:
        for place, (below, counts) in other.items():
            before = one.get(place, (0, np.zeros_like(counts)))
            one[place] = before[0] + below, before[1] + counts
        return one

    def is_impossible(
        self, item: Item, part: dict[tuple[int, int], tuple[int, np.ndarray]]
    ) -> bool:
        return any(below + counts.sum() > self.unit.n for below, counts in part.values())

    def join(self, item: Item, part: dict[tuple[int, int], tuple[int, np.ndarray]]) -> None:
        for place, (below, counts) in part.items():
            self.found[place].below += below
            self.found[place].counts += counts

    def end(self) -> Facts | Pass:
        unit, sampled = self.unit, self.search.sampled
        for t in self.models:
            bracket, number = sampled[t].bracket.copy(), 0
            for end, rank in enumerate(unit.job.ranks[t]):
                if not 0 < rank < unit.n:
                    bracket[2 * end : 2 * end + 2] = tally.NOTHING
                elif (t, end) in self.found:
                    one = self.found[t, end]
                    low, stop, inside = one.narrowed(rank, unit.n, unit.keys.itemsize)
                    bracket[2 * end : 2 * end + 2] = low, stop
                    number += inside if low < stop else 0
            sampled[t] = Sampled(bracket, number, number)
        return self.search.next()


class Bisecting(_Looking):
    """Finds the exact keys of the two ranks, `BITS` at a time, where samples misled twice."""

    def __init__(self, search: Search, models: list[int]):
        super().__init__(search, models)
        self.keys = {t: np.zeros(4, self.unit.keys) for t in models}
        self.end_, self.bits = -1, 0
        self.first: dict[int, int] = {}
        self.ranks: dict[int, int] = {}
        self.counts: dict[int, np.ndarray] = {}

    def begun(self) -> Pass:
        """Begin with the next bits, or the next rank; then count what the keys found bound."""
        if not self.bits:
            for t in self.ranks:
                self.keys[t][2 * self.end_ : 2 * self.end_ + 2] = self.first[t]
            self.end_ += 1
            if self.end_ == 2:
                return Counting(self.search, self.keys)
            ranks = {t: self.unit.job.ranks[t][self.end_] for t in self.models}
            self.ranks = {t: rank for t, rank in ranks.items() if rank not in (0, self.unit.n)}
            self.first = {t: 0 for t in self.ranks}
            if not self.ranks:
                return self.begun()
            self.bits = 8 * self.unit.keys.itemsize - 1
        self.shift = max(0, self.bits - BITS)
        self.counts = {t: np.zeros(1 << (self.bits - self.shift), np.int64) for t in self.ranks}
        return self

    def items(self) -> list[Item]:
        return [Item(i, tuple(self.ranks)) for i in range(len(self.unit.segments))]

    def scan(self, item: Item) -> dict[int, np.ndarray]:
        """Return of each model how many keys have which of the next bits."""
        unit = self.unit
        result = {t: np.zeros_like(self.counts[t]) for t in item.models}
        for t in item.models:
            base, model = unit.rows(unit.segments[item.number], [t])
            low = np.array([self.first[t]], unit.keys)
            for start in range(0, base.size, unit.job.chunk):
                run = slice(start, start + unit.job.chunk)
                unit.kernels.histogram(base[run], model[:, run], low, self.shift, result[t][None])
        return result

    def added(
        self, one: dict[int, np.ndarray], other: dict[int, np.ndarray]
    ) -> dict[int, np.ndarray]:
        for t, counts in other.items():
            one[t] = one[t] + counts if t in one else counts
        return one

    def is_impossible(self, item: Item, part: dict[int, np.ndarray]) -> bool:
        return any(counts.sum() > self.unit.n for counts in part.values())

    def join(self, item: Item, part: dict[int, np.ndarray]) -> None:
        for t, counts in part.items():
            self.counts[t] += counts

    def end(self) -> Facts | Pass:
        for t in self.ranks:
            bin_, before = tally.refine(self.counts[t], self.ranks[t])
            self.first[t] += bin_ << self.shift
            self.ranks[t] -= before
        self.bits = self.shift
        return self.begun()
