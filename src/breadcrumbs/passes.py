"""The passes of a survey as tasks: a sample, the counting of every chunk, and what follows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import survey, work
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.kernels import plain
from breadcrumbs.schedule import Task
from breadcrumbs.tensors import Merging
from breadcrumbs.work import GROUP, Job, Segment

if TYPE_CHECKING:
    from breadcrumbs.engine import Engine


class Survey:
    """The survey of one job, as tasks: a sample, the passes that it takes, and then the rest."""

    def __init__(self, engine: Engine, job: Job):
        self.engine, self.job = engine, job
        self.segments = list(job.segments())
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
        self.cuts = np.empty((self.chunks, self.number, 4), np.int64)
        self.tallies: dict[int, survey.Tally] = {}
        self._lock = threading.Lock()

    def start(self, then: Callable[[np.ndarray], list[Task]]) -> list[Task]:
        """Return the tasks of the first pass; the last one to end returns what ``then`` gives."""
        self.then = then
        models = sorted({t for part in self.parts.values() for t in part.who})
        step = survey.wave(self.n)
        self.waves = [models[i : i + step] for i in range(0, len(models), step)]
        return self._next()

    def _next(self) -> list[Task]:
        if not self.waves:
            return self.then(self.cuts)
        self.tries = 0
        return self._pass(self._sample(self.waves.pop(0)))

    def _pass(self, brackets: dict[int, np.ndarray]) -> list[Task]:
        for t, bracket in brackets.items():
            self.tallies[t] = survey.Tally.empty(bracket, self.chunks, self.n)
        models = list(brackets)
        groups = [models[i : i + GROUP] for i in range(0, len(models), GROUP)]
        work_ = [(i, group) for i in range(len(self.segments)) for group in groups]
        left = [len(work_)]

        def task(number: int, group: list[int]) -> Task:
            def tally() -> list[Task]:
                self._tally(number, group)
                with self._lock:
                    left[0] -= 1
                    if left[0]:
                        return []
                return self._resolve(models)

            return tally

        return [task(i, group) for i, group in work_]

    def _rows(self, segment: Segment, start: int, n: int, group: list[int]) -> np.ndarray:
        """Return raw rows, the base's and one for each model of ``group``; absent: unchanged."""
        rows = self.engine.buffer("raw", (1 + len(group), n), self.dtype)
        self._read(segment, start, group, rows)
        return rows

    def _read(self, segment: Segment, start: int, group: list[int], rows: np.ndarray) -> None:
        part = self.parts[segment.index]
        self.engine.read(self._tensors(segment, group), start, rows)
        if part.careful:
            part.check(rows, slice(0, 0), start)

    def _tally(self, number: int, group: list[int]) -> None:
        segment, chunk = self.segments[number], self.job.chunk
        room = int(survey.ROOM * work.SEGMENT)
        kept = self.engine.buffer("kept", (len(group), room), self.keys)
        filled = np.zeros(len(group), np.int64)
        brackets = np.stack([self.tallies[t].bracket for t in group])
        n = segment.stop - segment.start
        chunks = slice(segment.first_chunk, segment.first_chunk - (-n // chunk))
        counts = np.zeros((chunks.stop - chunks.start, len(group), 4), np.int64)
        sizes = np.zeros(counts.shape[:2], np.int64)
        if not self._tally_files(segment, group, brackets, counts, kept, filled, sizes):
            counts[:], sizes[:], filled[:] = 0, 0, 0
            kernel = self.parts[segment.index].kernels
            for i, start in enumerate(range(segment.start, segment.stop, chunk)):
                rows = self._rows(segment, start, min(chunk, segment.stop - start), group)
                before = filled.copy()
                kernel.tally(rows[0], rows[1:], brackets, counts[i], kept, filled)
                sizes[i] = filled - before
        with self._lock:
            for row, t in enumerate(group):
                keys = kept[row, : min(filled[row], room)]
                self.tallies[t].take(chunks, counts[:, row], sizes[:, row], keys)

    def _tally_files(
        self, segment: Segment, group: list[int], brackets, counts, kept, filled, sizes
    ) -> bool:
        """Tally by the kernel that reads files; return whether that was possible."""
        part, chunk = self.parts[segment.index], self.job.chunk
        if part.kernels is plain or part.careful:
            return False
        tensors = self._tensors(segment, group)
        ranges = work.file_ranges(tensors, self.dtype, segment.start)
        if ranges is None:
            return False
        n = segment.stop - segment.start
        buffer = self.engine.buffer("raw", (len(tensors) * min(n, chunk),), self.dtype)
        return part.kernels.tally_files(
            *ranges, n, chunk, buffer, brackets, counts, kept, filled, sizes
        )

    def _tensors(self, segment: Segment, group: list[int]) -> list[Tensor]:
        """Return the base's tensor and the models', the base's again where one is absent."""
        tensor = self.parts[segment.index].tensor
        return [tensor.base, *(tensor.models[t] or tensor.base for t in group)]

    def _resolve(self, models: list[int]) -> list[Task]:
        unknown = []
        kernel = next(iter(self.parts.values())).kernels
        for t in models:
            cuts = survey.cuts(self.tallies.pop(t), self.job.first, self.job.last, self.n, kernel)
            if cuts is None:
                unknown.append(t)
            else:
                self.cuts[:, t] = cuts
        if unknown:
            self.tries += 1
            if self.tries < len(survey.MARGINS):
                return self._pass(self._sample(unknown))
            return self._pass(self._histograms(unknown))
        return self._next()

    def _sample(self, models: list[int]) -> dict[int, np.ndarray]:
        """Return brackets of the two ranks for each model, from a sample of runs."""
        run = min(survey.RUN, self.n)
        places = [self._locate(at, run) for at in survey.sample_starts(self.n)]
        result = {}
        for first in range(0, len(models), GROUP):
            group = models[first : first + GROUP]
            rows = self.engine.buffer("raw", (1 + len(group), len(places), run), self.dtype)
            by_hand = [] if self._read_runs(places, group, rows) else places
            for i, (segment, start) in enumerate(by_hand):
                n = min(run, segment.stop - start)
                self._read(segment, start, group, rows[:, i, :n])
                # A piece shorter than a run counts several times; that only widens the bracket.
                rows[:, i, n:] = rows[:, i, np.arange(n, run) % n]
            kernel = self.parts[places[0][0].index].kernels
            for t, keys in zip(group, kernel.magnitudes(rows[0], rows[1:]), strict=True):
                job, margin = self.job, survey.MARGINS[self.tries]
                result[t] = survey.bracket(keys, job.first, job.last, self.n, margin)
        return result

    def _read_runs(self, places: list, group: list[int], rows: np.ndarray) -> bool:
        """Read the sample by the kernel that reads files; return whether that was possible."""
        segment = places[0][0]
        part = self.parts[segment.index]
        if part.kernels is plain or part.careful or len(self.parts) > 1:
            return False
        ranges = work.file_ranges(self._tensors(segment, group), self.dtype, 0)
        starts = np.array([start for _, start in places], np.int64)
        return ranges is not None and part.kernels.read_runs(*ranges, starts, rows)

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
        for column, rank in ((0, self.job.first), (2, self.job.last)):
            if rank in (0, self.n):
                continue
            first = {t: 0 for t in models}
            ranks = {t: rank for t in models}
            bits = 8 * self.keys.itemsize - 1
            while bits:
                shift = max(0, bits - 11)
                counts = self._histogram(models, first, shift, 1 << (bits - shift))
                for t in models:
                    bin_, before = survey.refine(counts[t], ranks[t])
                    first[t] += bin_ << shift
                    ranks[t] -= before
                bits = shift
            for t in models:
                result[t][column : column + 2] = first[t]
        return result

    def _histogram(
        self, models: list[int], first: dict[int, int], shift: int, bins: int
    ) -> dict[int, np.ndarray]:
        counts = {t: np.zeros(bins, np.int64) for t in models}
        for segment in self.segments:
            for start in range(segment.start, segment.stop, self.job.chunk):
                n = min(self.job.chunk, segment.stop - start)
                for t in models:
                    rows = self._rows(segment, start, n, [t])
                    plain.histogram(
                        rows[0], rows[1:], np.array([first[t]], self.keys), shift, counts[t][None]
                    )
        return counts
