"""The merging of tensors by aggregates that are no plain sum: elections, spheres, spectra.

Plain NumPy, chunk by chunk, where the fused kernels do not apply. Every step is a function of
float64 task vectors; what it adds is rounded once, together with the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from breadcrumbs import electing, gram, plan_statistics
from breadcrumbs.aggregates import Elementwise, Entries, Gram, Whole
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import MismatchError
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

    def vote(self, segment: Segment, cuts: np.ndarray | None) -> int:
        """Return the sum of the votes of a segment's entries."""
        assert isinstance(self.aggregate, Elementwise) and self.aggregate.vote
        fast = electing.vote(self, segment, cuts)
        if fast is not None:
            return fast
        return sum(
            self.aggregate.vote(self._present(start, taus, kept))
            for start, _, _, taus, kept, _ in self.chunks(segment, cuts, again=True)
        )

    def write(self, segment: Segment, cuts: np.ndarray | None, known: object) -> SegmentReport:
        """Merge a segment. known: the majority of the votes, or the coefficients, if asked for."""
        report = SegmentReport([0] * self.merging.number)
        if isinstance(self.aggregate, Whole):
            self._write_whole(segment, cuts, report)
            return report
        fast = SegmentReport([0] * self.merging.number)
        if electing.elect(self, segment, cuts, known if isinstance(known, int) else 1, fast):
            return fast
        if isinstance(known, np.ndarray) and gram.combine(self, segment, known, fast):
            return fast
        for start, _, base, taus, kept, untouched in self.chunks(segment, cuts, again=True):
            if isinstance(self.aggregate, Gram):
                assert isinstance(known, np.ndarray)
                step = gram.step(self, known, start, base, self.everyone(taus))
            else:
                entries = self._present(start, taus, kept)
                if isinstance(self.aggregate, Elementwise):
                    entries.majority = known if isinstance(known, int) else 1
                    step = self._step(self.aggregate.combine(entries, self.values), base.shape)
                    report.counts.update(entries.counts)
                else:
                    total = self.engine.kernels.exact_sum(taus, self.merging.weights)
                    step = self.merging.factor * total
                    if self.merging.more:
                        step = step + self.merging.more * base
            self._count(kept, report)
            self._finish(segment.index, start, base, step, untouched, report)
        return report

    def _step(self, found: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return alpha times what an aggregate found; MismatchError if that is no such array."""
        if np.shape(found) != shape:
            raise MismatchError(
                f"tensor {self.tensor.name!r}: `combine` of method {self.engine.plan.method.name}"
                f" returned the shape {np.shape(found)}, not {shape}. Repair the method."
            )
        return self.alpha * np.asarray(found)

    def _added(self, base: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return base + step, both float64, as the output's dtype."""
        merged = self.engine.kernels.add_step(base, step)
        return rounded(merged, self.tensor, self.merging.kernels)

    def _write_whole(
        self, segment: Segment, cuts: np.ndarray | None, report: SegmentReport
    ) -> None:
        assert isinstance(self.aggregate, Whole)
        shape = self.tensor.base.shape
        base = np.empty(segment.stop - segment.start)
        taus = np.zeros((len(self.all), base.size))
        untouched = []
        for start, n, part, some, kept, bad in self.chunks(segment, cuts, again=True):
            at = slice(start - segment.start, start - segment.start + n)
            base[at], taus[:, at] = part, self.everyone(some)
            untouched.append(bad + at.start)
            self._count(kept, report)
        given: list[Any] = [base.reshape(shape), taus.reshape(-1, *shape), self.weights.tolist()]
        given.append(self.values)
        if self.aggregate.statistics is not None:
            plan = self.engine.plan
            given.append(plan_statistics.read_whole(plan, self.tensor, t) for t in self.all)
        step = self._step(self.aggregate.combine(*given), shape).reshape(-1)
        bad = np.concatenate(untouched)
        self._finish(segment.index, segment.start, base, step, bad, report)

    def _finish(self, index, start, base, step, untouched, report) -> None:
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
        merging, prepared = self.merging, self.engine.prepared
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
