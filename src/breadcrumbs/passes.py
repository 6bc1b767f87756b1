"""The passes of a survey as tasks: a sample, the counting of every chunk, and what follows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import survey
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.kernels import plain
from breadcrumbs.schedule import Task, after
from breadcrumbs.tensors import Merging
from breadcrumbs.work import FUSED, GROUP, Job, Segment

if TYPE_CHECKING:
    from breadcrumbs.engine import Engine


class Survey:
    """The survey of one job, as tasks: a sample, the passes that it takes, and then the rest."""

    def __init__(self, engine: Engine, job: Job):
        self.engine, self.job = engine, job
        self.segments = list(job.segments(min(job.rows, 1 + GROUP)))
        #: Whether one segment is all, also to write: then the rows of all models are read, once.
        self.once = len(self.segments) == len(list(job.segments())) == 1
        last = self.segments[-1]
        self.chunks = last.first_chunk - (-(last.stop - last.start) // job.chunk)
        self.n = sum(piece.stop - piece.start for piece in job.pieces)
        self.parts = {
            piece.index: Merging(engine, job, engine.plan.tensors[piece.index])
            for piece in job.pieces
        }
        self.dtype = job.dtype
        self.keys = np.dtype(np.uint64 if self.dtype == np.float64 else np.uint32)
        self.number = len(engine.plan.models)
        self.cuts = np.empty((self.chunks, self.number, 5), np.int64)
        chunk = job.chunk
        self.entries = np.array(
            [
                min(chunk, segment.stop - start)
                for segment in self.segments
                for start in range(segment.start, segment.stop, chunk)
            ]
        )
        self.tallies: dict[int, survey.Tally] = {}
        self.budget = survey.BUDGET if engine.budget is None else engine.budget
        self._lock = threading.Lock()

    def start(self, then: Callable[[np.ndarray], list[Task]]) -> list[Task]:
        """Return the tasks of the first pass; the last one to end returns what ``then`` gives."""
        self.then = then
        self.waiting = sorted({t for part in self.parts.values() for t in part.who})
        self.sampled: dict[int, tuple[np.ndarray, float]] = {}
        return self._next()

    def _next(self) -> list[Task]:
        """Return the tasks of a pass for as many of the models as there is room for."""
        if not self.waiting:
            return self.then(self.cuts)
        self.tries = 0
        some = self.waiting[:GROUP]
        self.sampled |= self._sample([t for t in some if t not in self.sampled])
        wide = [t for t in some if self._is_wide(t)]
        if wide:
            return self._narrow(wide)
        some = some[: survey.wave([self.sampled[t][1] for t in some])]
        del self.waiting[: len(some)]
        return self._pass({t: self.sampled.pop(t)[0] for t in some})

    def _is_wide(self, t: int) -> bool:
        """Whether more keys lie in the brackets of a model than are collected."""
        return self.sampled[t][1] * self.keys.itemsize > self.budget / 2

    def _narrow(self, models: list[int]) -> list[Task]:
        """Return the tasks of a pass that narrows the brackets of models by histograms."""
        found: dict[tuple[int, int], survey.Histogram] = {}
        for t in models:
            bracket = [int(key) for key in self.sampled[t][0]]
            for end in (0, 1):
                low, stop = bracket[2 * end : 2 * end + 2]
                if low < stop and 0 < self.job.ranks[t][end] < self.n:
                    found[t, end] = survey.Histogram.empty(low, stop)

        def count(segment: Segment) -> None:
            base, rows = self._rows(segment, models)
            for start in range(0, base.size, self.job.chunk):
                run = slice(start, start + self.job.chunk)
                keys = plain.magnitudes(base[run], rows[:, run])
                for (t, _), histogram in found.items():
                    below, counts = histogram.count(keys[models.index(t)])
                    with self._lock:
                        histogram.below += below
                        histogram.counts += counts

        def then() -> list[Task]:
            for t in models:
                bracket, number = self.sampled[t][0].copy(), 0
                for end, rank in enumerate(self.job.ranks[t]):
                    if not 0 < rank < self.n:
                        bracket[2 * end : 2 * end + 2] = survey.NOTHING
                    elif (t, end) in found:
                        low, stop, inside = found[t, end].narrowed(rank, self.n, self.keys.itemsize)
                        bracket[2 * end : 2 * end + 2] = low, stop
                        number += inside if low < stop else 0
                self.sampled[t] = bracket, number
            return self._next()

        return after([partial(count, segment) for segment in self.segments], then)

    def _pass(self, brackets: dict[int, np.ndarray]) -> list[Task]:
        for t, bracket in brackets.items():
            self.tallies[t] = survey.Tally.empty(bracket, self.chunks, self.n, self.budget)
        models = list(brackets)
        groups = [models[i : i + GROUP] for i in range(0, len(models), GROUP)]
        tallies = [
            partial(self._tally, i, group) for i in range(len(self.segments)) for group in groups
        ]
        return after(tallies, lambda: self._resolve(models))

    def _rows(self, segment: Segment, group: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return raw rows of a segment: the base's, and the models' of ``group`` (G, n)."""
        part, n = self.parts[segment.index], segment.stop - segment.start
        read = part.who if self.once and len(part.who) <= FUSED else group
        rows = self.engine.load(self._tensors(segment, read), segment.start, n, self.dtype)
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

    def _tally(self, number: int, group: list[int]) -> None:
        segment, chunk = self.segments[number], self.job.chunk
        part, n = self.parts[segment.index], segment.stop - segment.start
        base, models = self._rows(segment, group)
        kept = self.engine.buffer("kept", (len(group), survey.room(n)), self.keys)
        brackets = np.stack([self.tallies[t].bracket for t in group])
        chunks = slice(segment.first_chunk, segment.first_chunk - (-n // chunk))
        counts = np.zeros((chunks.stop - chunks.start, len(group), 4), np.int64)
        sizes = np.zeros(counts.shape[:2], np.int64)
        part.kernels.tally(base, models, chunk, brackets, counts, sizes, kept)
        with self._lock:
            for row, t in enumerate(group):
                keys = kept[row, : min(sizes[:, row].sum(), kept.shape[1])]
                self.tallies[t].take(chunks, counts[:, row], sizes[:, row], keys)
        share = n / part.tensor.base.size * len(group) / max(1, len(part.who))
        self.engine.looked(segment.index, share)

    def _tensors(self, segment: Segment, group: list[int]) -> list[Tensor]:
        """Return the base's tensor and the models', the base's again where one is absent."""
        tensor = self.parts[segment.index].tensor
        return [tensor.base, *(tensor.models[t] or tensor.base for t in group)]

    def _resolve(self, models: list[int]) -> list[Task]:
        unknown = []
        kernel = next(iter(self.parts.values())).kernels
        for t in models:
            tally, ranks = self.tallies.pop(t), self.job.ranks[t]
            cuts = survey.cuts(tally, *ranks, self.entries, kernel)
            del tally  # before the next ones are made
            if cuts is None:
                unknown.append(t)
            else:
                self.cuts[:, t] = cuts
        if unknown:
            self.tries += 1
            if self.tries < len(survey.MARGINS):
                return self._pass({t: it[0] for t, it in self._sample(unknown).items()})
            return self._pass(self._histograms(unknown))
        return self._next()

    def _sample(self, models: list[int]) -> dict[int, tuple[np.ndarray, float]]:
        """Return brackets of the two ranks for each model, and how many entries lie in them, about.

        Both are from a sample of runs.
        """
        run = min(survey.RUN, self.n)
        places = [self._locate(at, run) for at in survey.sample_starts(self.n)]
        result = {}
        for first in range(0, len(models), GROUP):
            group = models[first : first + GROUP]
            rows = self.engine.buffer("raw", (1 + len(group), len(places), run), self.dtype)
            self._read_runs(places, group, rows)
            kernel = self.parts[places[0][0].index].kernels
            for t, keys in zip(group, kernel.magnitudes(rows[0], rows[1:]), strict=True):
                margin = survey.MARGINS[self.tries]
                bracket = survey.bracket(keys, *self.job.ranks[t], self.n, margin)
                result[t] = bracket, survey.collected(keys, bracket, self.n)
        return result

    def _read_runs(self, places: list, group: list[int], rows: np.ndarray) -> None:
        """Fill rows (1 + models of ``group``, runs, entries) with a run from each of the places."""
        run = rows.shape[2]
        if self.once:
            segment = self.segments[0]
            base, models = self._rows(segment, group)
            for i, (_, start) in enumerate(places):
                at = slice(start - segment.start, start - segment.start + run)
                rows[0, i], rows[1:, i] = base[at], models[:, at]
            return
        for i, (segment, start) in enumerate(places):
            part, n = self.parts[segment.index], min(run, segment.stop - start)
            self.engine.read(self._tensors(segment, group), start, rows[:, i, :n])
            if part.careful:
                part.check(rows[:, i, :n], slice(0, 0), start)
            # A piece shorter than a run counts several times; that only widens the bracket.
            rows[:, i, n:] = rows[:, i, np.arange(n, run) % n]

    def _locate(self, at: int, run: int) -> tuple[Segment, int]:
        """Return the segment and the entry of its tensor that entry ``at`` of the job is."""
        for segment in self.segments:
            size = segment.stop - segment.start
            if at < size:
                return segment, max(segment.start, min(segment.start + at, segment.stop - run))
            at -= size
        raise IndexError(at)

    def _histograms(self, models: list[int]) -> dict[int, np.ndarray]:
        """Return the exact keys of the two ranks, each as a bracket of that key alone."""
        result = {t: np.zeros(4, self.keys) for t in models}
        for end in (0, 1):
            ranks = {t: self.job.ranks[t][end] for t in models}
            ranks = {t: rank for t, rank in ranks.items() if rank not in (0, self.n)}
            first = {t: 0 for t in ranks}
            if not ranks:
                continue
            bits = 8 * self.keys.itemsize - 1
            while bits:
                shift = max(0, bits - 11)
                counts = self._histogram(list(ranks), first, shift, 1 << (bits - shift))
                for t in ranks:
                    bin_, before = survey.refine(counts[t], ranks[t])
                    first[t] += bin_ << shift
                    ranks[t] -= before
                bits = shift
            for t in ranks:
                result[t][2 * end : 2 * end + 2] = first[t]
        return result

    def _histogram(
        self, models: list[int], first: dict[int, int], shift: int, bins: int
    ) -> dict[int, np.ndarray]:
        counts = {t: np.zeros(bins, np.int64) for t in models}
        for segment in self.segments:
            for t in models:
                base, model = self._rows(segment, [t])
                for start in range(0, base.size, self.job.chunk):
                    run = slice(start, start + self.job.chunk)
                    low = np.array([first[t]], self.keys)
                    plain.histogram(base[run], model[:, run], low, shift, counts[t][None])
        return counts
