"""The merging of tensors by aggregates that are no plain sum: elections, spheres, spectra.

Plain NumPy, chunk by chunk, where the fused kernels do not apply. Every step is a function of
float64 task vectors; what it adds is rounded once, together with the base.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from breadcrumbs import electing, gram, plan_statistics
from breadcrumbs.aggregates import Elementwise, Entries, Gram, Linear, Whole, ordering
from breadcrumbs.ballot import Ballot, Polling
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import MismatchError
from breadcrumbs.kernels import plain
from breadcrumbs.parameters import Values
from breadcrumbs.reading import Reading
from breadcrumbs.sink import SegmentReport
from breadcrumbs.tensors import rounded
from breadcrumbs.work import Segment


class Combining(Reading):
    """The merging of one tensor, or of the part of it that a job has, by such an aggregate."""

    def stream(self, segment: Segment, cuts: np.ndarray | None) -> Iterator[tuple[int, Entries]]:
        """Yield (start, entries) of a segment, for `Elementwise.prepare`."""
        for start, _, _, taus, kept, _ in self.chunks(segment, cuts):
            yield start, self._present(start, taus, kept)

    def write(
        self, segment: Segment, cuts: np.ndarray | None, known: object, ballot: Ballot | None = None
    ) -> SegmentReport:
        """Merge a segment. known: the coefficients, if asked for. ballot: where the majority of the
        model is."""
        report = SegmentReport([0] * self.merging.number)
        if isinstance(self.aggregate, Whole):
            self._write_whole(segment, cuts, report)
            return report
        fast = SegmentReport([0] * self.merging.number)
        if electing.elect(self, segment, cuts, ballot, fast):
            return fast
        if isinstance(known, np.ndarray) and gram.combine(self, segment, known, fast):
            return fast
        polling = Polling(ballot, segment) if ballot else None
        for start, _, base, taus, kept, untouched in self.chunks(segment, cuts, again=True):
            if isinstance(self.aggregate, Gram):
                assert isinstance(known, np.ndarray)
                found = gram.step(self, known, start, base, self.everyone(taus))
            elif isinstance(self.aggregate, Elementwise):
                entries = self._present(start, taus, kept)
                entries.majority = polling.majority if polling else 1
                found = self._found(self.aggregate.combine(entries, self.unscaled), base.shape)
                report.counts.update(entries.counts)
                if polling:
                    self._poll(polling, start, base, entries, found, untouched)
            else:
                found = self.engine.kernels.exact_sum(taus, self.merging.weights)
            self._count(kept, report)
            self.add(segment.index, start, base, found, untouched, report)
        if polling:
            polling.close(report)
        return report

    def _poll(
        self,
        polling: Polling,
        start: int,
        base: np.ndarray,
        entries: Entries,
        found: np.ndarray,
        untouched: np.ndarray,
    ) -> None:
        """Count votes, and find out what the other majority would make of what was found."""
        assert isinstance(self.aggregate, Elementwise) and self.aggregate.vote
        votes = self.aggregate.vote(entries)
        turned = replace(entries, majority=-entries.majority, counts=Counter())
        other = self._found(self.aggregate.combine(turned, self.unscaled), base.shape)
        where = np.flatnonzero(other != found)
        if entries.counts or self.engine.steps is not None or self.tensor.onto is not None:
            polling.add_unknown(votes, where.size)
            return
        where = np.setdiff1d(where, untouched)
        step, less = self._step(base, other)[where], self._step(base, found)[where]
        try:
            out = self._added(base[where], step)
        except MismatchError:  # which only counts if that is the majority
            polling.add_unknown(votes, where.size)
            return
        more = float(np.einsum("i,i->", step, step) - np.einsum("i,i->", less, less))
        polling.add(votes, where + (start - polling.segment.start), out, more)

    @property
    def unscaled(self) -> Values:
        """The parameters as `combine` has them: without alpha, which what it returns is times."""
        return {key: value for key, value in self.values.items() if key != "alpha"}

    def _found(self, found: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Return what an aggregate found, flat; MismatchError if that is no array of that shape."""
        if np.shape(found) != shape:
            raise MismatchError(
                f"tensor {self.tensor.name!r}: `combine` of method {self.engine.plan.method.name}"
                f" returned the shape {np.shape(found)}, not {shape}. Repair the method."
            )
        return np.asarray(found, np.float64).reshape(-1)

    def _step(self, base: np.ndarray, found: np.ndarray) -> np.ndarray:
        """Return what is added to the base: the factor times what an aggregate found."""
        if isinstance(self.aggregate, Gram):
            return found
        if not isinstance(self.aggregate, Linear):
            return self.alpha * found
        step = self.merging.factor * found
        return step + self.merging.more * base if self.merging.more else step

    def _added(self, base: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return base + step, both float64, as the output's dtype."""
        merged = self.engine.kernels.add_step(base, step)
        return rounded(merged, self.tensor, self.merging.kernels)

    def _write_whole(
        self, segment: Segment, cuts: np.ndarray | None, report: SegmentReport
    ) -> None:
        assert isinstance(self.aggregate, Whole)
        shape = self.aggregate.each(self.tensor.name, self.tensor.base.shape, self.values)
        base = np.empty(segment.stop - segment.start)
        taus = np.zeros((len(self.all), base.size))
        untouched = []
        for start, n, part, some, kept, bad in self.chunks(segment, cuts, again=True):
            at = slice(start - segment.start, start - segment.start + n)
            base[at], taus[:, at] = part, self.everyone(some)
            untouched.append(bad + at.start)
            self._count(kept, report)
        size, found = math.prod(shape), np.empty(base.size)
        for at in range(0, base.size, size):
            part = slice(at, at + size)
            mine, order = taus[:, part], list(range(len(taus)))
            if not self.aggregate.ordered and len(taus) > 1:  # else sums over models would differ
                order = ordering.by_content(mine, self.weights)
                ordering.permute(mine, order)
            given: list[Any] = [base[part].reshape(shape), mine.reshape(-1, *shape)]
            given += [self.weights[order].tolist(), self.unscaled]
            if self.aggregate.statistics is not None:
                plan, who = self.engine.plan, [self.all[t] for t in order]
                given.append(plan_statistics.read_whole(plan, self.tensor, t) for t in who)
            found[part] = self._found(self.aggregate.combine(*given), shape)
        bad = np.concatenate(untouched)
        self.add(segment.index, segment.start, base, found, bad, report)

    def rescale(self, index: int, start: int, found: np.ndarray) -> None:
        """Write a chunk from what an aggregate found before."""
        raw, untouched = self.merging.base(start, found.size)
        base = plain.widen(raw).astype(np.float64)
        report = SegmentReport([0] * self.merging.number)
        self.add(index, start, base, found, untouched, report)

    def add(
        self,
        index: int,
        start: int,
        base: np.ndarray,
        found: np.ndarray,
        untouched: np.ndarray,
        report: SegmentReport,
    ) -> None:
        """Write a chunk of the base, float64, plus the step that follows from ``found``.

        untouched: entries of the base that stay as they are, since they are not finite.
        """
        if self.engine.steps is not None:
            self.engine.steps.keep(self.tensor, start, found)
        step = self._step(base, found)
        if self.tensor.onto is not None:
            raw = np.empty(base.size, DTYPES[self.tensor.onto.dtype])
            self.tensor.onto.read_into(start, raw)
            base = raw.astype(np.float64)
            if not np.isfinite(base).all():
                raise MismatchError(
                    f"{self.engine.plan.target.label}: tensor {self.tensor.name!r} is not finite."
                    " Nothing can be added to it."
                )
        out = self._added(base, step)
        if untouched.size:
            original = np.empty(out.size, DTYPES[self.tensor.base.dtype])
            self.tensor.base.read_into(start, original)
            out[untouched] = original[untouched].astype(out.dtype)
        report.squares += float(np.einsum("i,i->", step, step))
        self.engine.sink.write(index, start, out)

    def _count(self, kept: np.ndarray, report: SegmentReport) -> None:
        for t, mine in zip(self.merging.who, kept, strict=True):  # along an axis it is slow
            report.kept[t] += int(np.count_nonzero(mine))

    def _present(self, start: int, taus: np.ndarray, kept: np.ndarray) -> Entries:
        merging, prepared = self.merging, self.engine.prepared.get(self.tensor.component)
        aggregate, statistics = self.aggregate, self.engine.plan.method.statistics
        prepares = isinstance(aggregate, Elementwise) and aggregate.prepare is not None
        if statistics is None and not prepares:
            return Entries(taus, kept, merging.given, kernels=self.engine.kernels)
        taus = self.everyone(taus)
        entries = Entries(taus, self.everyone(kept), self.weights, who=self.all)
        entries.narrow, entries.kernels = merging.dtype != np.float64, self.engine.kernels
        if statistics is not None:
            given = self.engine.buffer("statistics", taus.shape, np.float64)
            for row, t in zip(given, self.all, strict=True):
                plan_statistics.read_part(self.engine.plan, self.tensor, t, start, row)
            entries.statistics = given
        if prepared is not None:
            entries.start = prepared.starts[self.tensor.name] + start
            entries.known = prepared.known
        return entries
