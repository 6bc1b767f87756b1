"""The merging of tensors by aggregates that are no plain sum: elections, spheres, spectra.

Plain NumPy, chunk by chunk. Every step is a function of float64 task vectors; what it adds is
rounded once, together with the base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from breadcrumbs import angles, plan_statistics, work
from breadcrumbs.aggregates import Aggregate, Elementwise, Entries, Gram, Linear, Whole
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.draws import draws
from breadcrumbs.errors import MismatchError
from breadcrumbs.kernels import plain
from breadcrumbs.sink import SegmentReport
from breadcrumbs.tensors import Merging, rounded
from breadcrumbs.transforms import Band, Chances, Draw, Everything, Fitted
from breadcrumbs.work import FUSED, Segment

#: The L1 norm that a task vector must have to be rescaled by it.
LEAST_NORM = 1e-7


class Combining:
    """The merging of one tensor, or of the part of it that a job has, by such an aggregate."""

    def __init__(self, merging: Merging):
        self.merging, self.engine, self.job = merging, merging.engine, merging.job
        self.tensor, self.values = merging.tensor, merging.tensor.values
        self.aggregate: Aggregate = self.engine.plan.method.aggregate
        self.transform = self.engine.plan.method.transform
        #: All models of a weight other than 0; an absent one counts as unchanged.
        weights = [own.weight for own in self.tensor.own]
        self.all = [t for t, weight in enumerate(weights) if weight != 0]
        self.weights = np.array([weights[t] for t in self.all], np.float64)
        #: Factor of the step, and of the task vectors. Entries are rescaled last, so that opposite
        #: task vectors cancel.
        self.alpha: float = self.values.get("alpha", 1.0)
        self.scale = merging.scale
        self.scales = None if isinstance(self.aggregate, Linear) else merging.scales
        if isinstance(self.aggregate, Elementwise):
            self.alpha *= self.scale
        if isinstance(self.aggregate, Elementwise | Linear):  # the factor of which has it already
            self.scale = 1.0

    # --- before writing ---

    def fit(self, segments: list[Segment]) -> Any:
        """Return what a `Fitted` transform must know of the tensor."""
        assert isinstance(self.transform, Fitted)

        def begin() -> Iterator[np.ndarray]:
            for segment in segments:
                yield from (taus for _, _, _, taus, _, _ in self._chunks(segment, None))

        return self.transform.fit(begin, self.values)

    def stream(self, segment: Segment, cuts: np.ndarray | None) -> Iterator[tuple[int, Entries]]:
        """Yield (start, entries) of a segment, for `Elementwise.prepare`."""
        for start, _, _, taus, kept, _ in self._chunks(segment, cuts):
            yield start, self._present(start, taus, kept)

    def vote(self, segment: Segment, cuts: np.ndarray | None) -> int:
        """Return the sum of the votes of a segment's entries."""
        assert isinstance(self.aggregate, Elementwise) and self.aggregate.vote
        fast = self._vote_fast(segment, cuts)
        if fast is not None:
            return fast
        return sum(
            self.aggregate.vote(self._present(start, taus, kept))
            for start, _, _, taus, kept, _ in self._chunks(segment, cuts)
        )

    def _vote_fast(self, segment: Segment, cuts: np.ndarray | None) -> int | None:
        """Return the votes by the fused kernel, or None where it may not be exact."""
        merging = self.merging
        known = self._is_election and not self._weighted
        if not known or cuts is None or not isinstance(self.transform, Band):
            return None
        n = segment.stop - segment.start
        tensors = [self.tensor.base, *merging.models]
        rows = self.engine.load(tensors, segment.start, n, self.job.dtype)
        smallest, largest = merging.kernels.extent(rows)
        exact = work.provably_exact(smallest, largest, len(merging.models), merging.precision)
        if not exact or not math.isfinite(largest):
            return None
        mine = merging.of_segment(segment, cuts)
        return merging.kernels.vote_band(rows[0], rows[1:], self.job.chunk, mine)

    @property
    def _is_election(self) -> bool:
        """Whether the fused kernels know this aggregate."""
        merging, number = self.merging, len(self.merging.models)
        return (
            isinstance(self.aggregate, Elementwise)
            and self.aggregate.kind is not None
            and not isinstance(self.transform, Chances | Fitted)
            and merging.fused
            and self.scales is None
            and not merging.careful
            and self.tensor.onto is None
            and (number <= plain.SUBSETS or not self._weighted)
        )

    @property
    def _weighted(self) -> bool:
        return bool((self.merging.given != 1).any())

    def _elect_fast(
        self, segment: Segment, cuts: np.ndarray | None, majority: int, report: SegmentReport
    ) -> bool:
        """Merge a segment by the fused kernels; return whether they may."""
        merging, job = self.merging, self.job
        if not self._is_election:
            return False
        assert isinstance(self.aggregate, Elementwise) and self.aggregate.kind
        kind, band = self.aggregate.kind(self.values), isinstance(self.transform, Band)
        step = job.chunk if band and cuts is None else segment.stop - segment.start
        kept = np.zeros(len(merging.models), np.int64)
        none = np.empty((0, len(merging.models), 4), np.int64)
        keys, limits = merging.draws_of()
        weights = merging.given if self._weighted else np.empty(0)
        shares = self._shares(weights) if kind == plain.MEAN else np.empty(1)
        done = []
        for start in range(segment.start, segment.stop, step):
            n = min(step, segment.stop - start)
            rows = self.engine.load([self.tensor.base, *merging.models], start, n, job.dtype)
            base, models = rows[0], rows[1:]
            out = merging.raw_buffer(n)
            bits = np.array(plain.NO_EXTENT, np.uint32)
            settings, results = (kind, majority), (self.alpha, bits, out)
            unit, mine, drawn = n, none, (keys, start, limits)
            if band and cuts is None:
                unit, mine = merging.cuts_of(rows, slice(0, FUSED), None)
            elif band and cuts is not None:
                unit, mine = job.chunk, merging.of_segment(segment, cuts)
            kernels, inexact = merging.kernels, None
            if weights.size:
                settings = unit, mine, drawn, *settings, weights, shares
                squares, inexact = kernels.elect_weighted(base, models, *settings, *results, kept)
            elif band:
                squares = kernels.elect_band(base, models, unit, mine, *settings, *results)
            else:
                squares = kernels.elect_drawn(base, models, *drawn, *settings, *results, kept)
            values = merging.accept(self.alpha**2 * squares, inexact, bits, out, report)
            if values is None:
                return False
            done.append((start, values.copy() if n < segment.stop - segment.start else values))
        for start, values in done:  # not before all are right, since nothing is written twice
            self.engine.sink.write(segment.index, start, values)
        merging.add_kept(kept, report)
        merging.count_kept(segment, cuts, report)
        return True

    def _shares(self, weights: np.ndarray) -> np.ndarray:
        """Return, of each set of models as the bits of a number, what their mean divides by."""
        mine = weights if self.values["shares"] == "signed" else np.abs(weights)
        sets = range(1 << len(mine))
        return np.array(
            [math.fsum(w for t, w in enumerate(mine.tolist()) if bits >> t & 1) for bits in sets]
        )

    def ratios(self, segments: list[Segment], cuts: np.ndarray | None) -> np.ndarray:
        """Return, of each model that counts, the L1 norm of its task vector over what stays of it.

        1 for one that is not rescaled, or hardly has a norm.
        """
        merging, chunk = self.merging, self.job.chunk
        asks = [self.tensor.own[t].values.get("rescale") == "l1" for t in merging.who]
        size = len(merging.who)
        parts, rows = [], np.empty((2 * size, 0))
        for segment in segments:
            for i, start in enumerate(range(segment.start, segment.stop, chunk)):
                n = min(chunk, segment.stop - start)
                place = (segment.first_chunk + i, merging.who, slice(4))
                mine = None if cuts is None else cuts[place][None]
                rows = np.concatenate([rows, self._magnitudes(start, n, mine)], 1)
                while rows.shape[1] >= plain.PART:  # as in `products`
                    parts.append(rows[:, : plain.PART].sum(axis=1))
                    rows = rows[:, plain.PART :]
        parts.append(rows.sum(axis=1))
        norms = [math.fsum(column) for column in np.array(parts).T]
        return np.array(
            [
                before / after if ask and min(before, after) >= LEAST_NORM else 1.0
                for ask, before, after in zip(asks, norms[:size], norms[size:], strict=True)
            ]
        )

    def _magnitudes(self, start: int, n: int, cuts: np.ndarray | None) -> np.ndarray:
        """Return the magnitudes (2 T, n) of the task vectors, and of what stays of them."""
        merging = self.merging
        result = np.zeros((2, len(merging.who), n))
        for group in merging.groups():
            rows = merging.read(start, n, group)
            merging.check(rows, group, start)
            before, after = result[:, group]
            np.subtract(plain.widen(rows[1:]), plain.widen(rows[0]).astype(np.float64), out=before)
            after[:] = before
            kept = np.ones(after.shape, np.bool_)
            self._transform(rows, group, start, cuts, after, kept)
        return np.abs(result.reshape(-1, n))

    def products(self, segments: list[Segment], cuts: np.ndarray | None) -> np.ndarray:
        """Return the inner products (parts, 1 + T, 1 + T) of the base and the task vectors.

        They are added up in parts of `plain.PART` entries of the tensor, whatever the chunks, so
        segments must begin at such a part.
        """
        parts = [self._products_fast(segment) for segment in segments]
        if not any(part is None for part in parts):
            return np.concatenate([part for part in parts if part is not None])
        parts, rows = [], np.empty((1 + len(self.all), 0))
        for segment in segments:
            for _, _, base, taus, _, _ in self._chunks(segment, cuts):
                rows = np.concatenate([rows, np.concatenate([base[None], self._everyone(taus)])], 1)
                whole = rows.shape[1] // plain.PART * plain.PART
                parts.append(self._products_of(rows[:, :whole]))
                rows = rows[:, whole:]
        parts.append(self._products_of(rows))
        return np.concatenate(parts)

    def _products_fast(self, segment: Segment) -> np.ndarray | None:
        """Return the inner products of a segment of task vectors as they are, or None."""
        merging = self.merging
        n = segment.stop - segment.start
        plain_sums = isinstance(self.transform, Everything) and not merging.careful
        if not plain_sums or not merging.fused or segment.start % plain.PART:
            return None
        rows = self.engine.load(
            [self.tensor.base, *merging.models], segment.start, n, self.job.dtype
        )
        out = np.empty((-(-n // plain.PART), len(rows), len(rows)))
        merging.kernels.products(rows[0], rows[1:], out)
        if not np.isfinite(out).all():
            merging.check(rows.copy(), slice(0, None), segment.start)  # which says where
        return self._with_absent(out)

    def _products_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the inner products of rows of float64, the first of which is the base's."""
        out = np.empty((-(-rows.shape[1] // plain.PART), len(rows), len(rows)))
        self.merging.kernels.row_products(rows, out)
        return out

    def _with_absent(self, products: np.ndarray) -> np.ndarray:
        """Return the products with zeros for the models that lack the tensor."""
        if len(self.all) == len(self.merging.who):
            return products
        mine = [0, *(1 + self.all.index(t) for t in self.merging.who)]
        result = np.zeros((len(products), 1 + len(self.all), 1 + len(self.all)))
        result[:, np.array(mine)[:, None], mine] = products
        return result

    def coefficients(self, products: np.ndarray) -> np.ndarray:
        """Return the coefficients (1 + T,) of the base and the task vectors of a tensor."""
        assert isinstance(self.aggregate, Gram)
        size = products.shape[1]
        gram = np.array([math.fsum(cell) for cell in products.reshape(len(products), -1).T])
        return self.aggregate.coefficients(
            gram.reshape(size, size), self.weights.tolist(), self.values
        )

    def line_coefficients(self, segments: list[Segment], cuts: np.ndarray | None) -> np.ndarray:
        """Return the coefficients (lines, 1 + T) of the lines of a tensor."""
        assert isinstance(self.aggregate, Gram)
        find, weights = self.aggregate.coefficients, self.weights.tolist()
        pieces = (
            np.concatenate([base[None], self._everyone(taus)])
            for segment in segments
            for _, _, base, taus, _, _ in self._chunks(segment, cuts)
        )
        lines = self.aggregate.lines(self.values)
        return angles.coefficients(
            pieces, self.tensor.base.shape, lines, lambda gram: find(gram, weights, self.values)
        )

    def task_vectors(
        self, segment: Segment, cuts: np.ndarray | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (start, transformed task vectors of all models (T, n)), chunk by chunk."""
        if isinstance(self.transform, Draw):
            self.scale = self.transform.scale(self.values)
        for start, _, _, taus, _, _ in self._chunks(segment, cuts):
            yield start, self._everyone(taus)

    # --- writing ---

    def write(self, segment: Segment, cuts: np.ndarray | None, known: object) -> SegmentReport:
        """Merge a segment. known: the majority of the votes, or the coefficients, if asked for."""
        report = SegmentReport([0] * self.merging.number)
        if isinstance(self.aggregate, Whole):
            self._write_whole(segment, cuts, report)
            return report
        fast = SegmentReport([0] * self.merging.number)
        if self._elect_fast(segment, cuts, known if isinstance(known, int) else 1, fast):
            return fast
        if isinstance(known, np.ndarray) and self._combine_fast(segment, known, fast):
            return fast
        for start, _, base, taus, kept, untouched in self._chunks(segment, cuts):
            if isinstance(self.aggregate, Gram):
                assert isinstance(known, np.ndarray)
                step = self._combined(known, start, base, self._everyone(taus))
            else:
                entries = self._present(start, taus, kept)
                if isinstance(self.aggregate, Elementwise):
                    entries.majority = known if isinstance(known, int) else 1
                    step = self.alpha * self.aggregate.combine(entries, self.values)
                    report.counts.update(entries.counts)
                else:
                    step = self.merging.factor * plain.exact_sum(
                        self.merging.weights[:, None] * taus
                    )
                    if self.merging.more:
                        step = step + self.merging.more * base
            self._count(kept, report)
            self._finish(segment.index, start, base, step, untouched, report)
        return report

    def _combine_fast(
        self, segment: Segment, coefficients: np.ndarray, report: SegmentReport
    ) -> bool:
        """Merge a segment as a weighted sum by the fused kernel; return whether that is exact."""
        merging, n = self.merging, segment.stop - segment.start
        as_is = isinstance(self.transform, Everything) and self.tensor.onto is None
        if not as_is or merging.careful or not merging.fused:
            return False
        if coefficients.ndim == 2:  # of lines
            return False
        rows = self.engine.load(
            [self.tensor.base, *merging.models], segment.start, n, self.job.dtype
        )
        own, weights, factor = self._factored(coefficients)
        if weights.size:
            weights = np.array([weights[self.all.index(t)] for t in merging.who])
        bits, out = np.array(plain.NO_EXTENT, np.uint32), merging.raw_buffer(n)
        squares, inexact = merging.kernels.combine(
            rows[0], rows[1:], own, weights, factor, bits, out
        )
        smallest, largest = plain.extent_of(bits, self.job.dtype)
        if not weights.size:
            number = len(merging.models)
            inexact = not work.provably_exact(smallest, largest, number, merging.precision)
        overflow = not math.isfinite(merging.kernels.extent(out)[1])
        if inexact or overflow or not math.isfinite(largest):
            return False
        report.squares += squares
        self.engine.sink.write(segment.index, segment.start, out.view(DTYPES[self.tensor.dtype]))
        merging.count_kept(segment, None, report)
        return True

    def _factored(self, coefficients: np.ndarray) -> tuple[float, np.ndarray, float]:
        """Return (the base's coefficient, those of the task vectors, a factor of both).

        A coefficient that all task vectors share is taken out, so that what is summed is exact.
        """
        own, weights = float(coefficients[0]), coefficients[1:]
        if own == 0 and (weights == weights[0]).all():
            return 0.0, np.empty(0), float(weights[0])
        return own, weights, 1.0

    def _combined(
        self, coefficients: np.ndarray, start: int, base: np.ndarray, taus: np.ndarray
    ) -> np.ndarray:
        """Return the step of some entries, by the coefficients of the tensor or of its lines."""
        if coefficients.ndim == 2:
            assert isinstance(self.aggregate, Gram)
            lines = self.aggregate.lines(self.values)
            mine = angles.line_of(self.tensor.base.shape, lines, start, base.size)
            return plain.exact_sum(coefficients[mine].T * np.concatenate([base[None], taus]))
        own, weights, factor = self._factored(coefficients)
        if weights.size:
            taus = np.concatenate([own * base[None], weights[:, None] * taus])
        return factor * plain.exact_sum(taus)

    def _added(self, base: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Return base + step, both float64, as the output's dtype."""
        # Without a step the base stays as it is, and so does the sign of its zeros.
        merged = np.where(step == 0, base, base + step)
        return rounded(merged, self.tensor, self.merging.kernels)

    def _write_whole(
        self, segment: Segment, cuts: np.ndarray | None, report: SegmentReport
    ) -> None:
        assert isinstance(self.aggregate, Whole)
        shape = self.tensor.base.shape
        base = np.empty(segment.stop - segment.start)
        taus = np.zeros((len(self.all), base.size))
        untouched = []
        for start, n, part, some, kept, bad in self._chunks(segment, cuts):
            at = slice(start - segment.start, start - segment.start + n)
            base[at], taus[:, at] = part, self._everyone(some)
            untouched.append(bad + at.start)
            self._count(kept, report)
        given: list[Any] = [base.reshape(shape), taus.reshape(-1, *shape), self.weights.tolist()]
        given.append(self.values)
        if self.aggregate.statistics is not None:
            plan = self.engine.plan
            given.append(plan_statistics.read_whole(plan, self.tensor, t) for t in self.all)
        step = self.aggregate.combine(*given)
        step = self.alpha * step.reshape(-1)
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
        for t, number in zip(self.merging.who, np.count_nonzero(kept, axis=1), strict=True):
            report.kept[t] += int(number)

    # --- reading ---

    def _present(self, start: int, taus: np.ndarray, kept: np.ndarray) -> Entries:
        merging, prepared = self.merging, self.engine.prepared
        aggregate, statistics = self.aggregate, self.engine.plan.method.statistics
        prepares = isinstance(aggregate, Elementwise) and aggregate.prepare is not None
        if statistics is None and not prepares:
            return Entries(taus, kept, merging.given)
        taus = self._everyone(taus)
        entries = Entries(taus, self._everyone(kept), self.weights, who=self.all)
        entries.narrow = merging.dtype != np.float64
        if statistics is not None:
            given = self.engine.buffer("statistics", taus.shape, np.float64)
            for row, t in zip(given, self.all, strict=True):
                plan_statistics.read_part(self.engine.plan, self.tensor, t, start, row)
            entries.statistics = given
        if prepared is not None:
            entries.start = prepared.starts[self.tensor.name] + start
            entries.known = prepared.known
        return entries

    def _everyone(self, taus: np.ndarray) -> np.ndarray:
        """Return rows for all models, zeros for those that lack the tensor."""
        if len(self.all) == len(taus):
            return taus
        result = np.zeros((len(self.all), taus.shape[1]), taus.dtype)
        result[[self.all.index(t) for t in self.merging.who]] = taus
        return result

    def _chunks(self, segment: Segment, cuts: np.ndarray | None) -> Iterator[tuple]:
        """Yield (start, n, base, transformed task vectors, kept, entries that stay as they are)."""
        chunk, who = self.job.chunk, self.merging.who
        for i, start in enumerate(range(segment.start, segment.stop, chunk)):
            n = min(chunk, segment.stop - start)
            mine = None if cuts is None else cuts[segment.first_chunk + i, who, :4][None]
            yield (start, n, *self._entries(start, n, mine))

    def _entries(self, start: int, n: int, cuts: np.ndarray | None) -> tuple:
        merging = self.merging
        taus = np.empty((len(merging.who), n))
        kept = np.ones(taus.shape, np.bool_)
        base = np.empty(n)
        untouched = np.empty(0, np.int64)
        for group in merging.groups():
            rows = merging.read(start, n, group)
            _, _, untouched = merging.check(rows, group, start)
            base = plain.widen(rows[0]).astype(np.float64)
            mine = taus[group]
            np.subtract(plain.widen(rows[1:]), base, out=mine)
            self._transform(rows, group, start, cuts, mine, kept[group])
            if self.scales is not None:
                mine *= self.scales[group, None]
            elif self.scale != 1:
                mine *= self.scale
        if isinstance(self.transform, Fitted) and self.tensor.name in self.engine.fits:
            taus = self.transform.change(taus, self.engine.fits[self.tensor.name], self.values)
        return base, taus, kept, untouched

    def _transform(self, rows, group, start, cuts, taus, kept) -> None:
        """Cut and scale the task vectors of a group of models, and note what was kept."""
        transform, merging = self.transform, self.merging
        if isinstance(transform, Band):
            unit, mine = merging.cuts_of(rows, group, cuts)
            for t, keys in enumerate(plain.magnitudes(rows[0], rows[1:])):
                for u, cut in enumerate(mine[:, t]):
                    run = slice(u * unit, (u + 1) * unit)
                    kept[t, run] = plain.band(keys[run], cut)
            taus[~kept] = 0
        elif isinstance(transform, Draw):
            keys, limits = merging.draws_of(group)
            for t in range(len(kept)):
                kept[t] = plain.drawn(rows.shape[1], keys, start, limits, t)
            taus[~kept] = 0
        elif isinstance(transform, Chances):
            self._draw_by_rank(transform, rows, group, start, taus, kept)

    def _draw_by_rank(self, transform: Chances, rows, group, start, taus, kept) -> None:
        unit = self.job.unit
        for row, t in enumerate(self.merging.who[group]):
            values = self.tensor.own[t].values
            chances = np.asarray(transform.chances(unit, values))
            limits = np.floor(chances * 2.0**32).astype(np.uint64)
            keys = plain.magnitudes(rows[0], rows[1 + row]).reshape(-1, unit)
            ranks = np.empty(keys.shape, np.int64)
            order = np.argsort(keys, axis=1, kind="stable")
            np.put_along_axis(ranks, order, np.arange(unit)[None], axis=1)
            ranks = ranks.reshape(-1)
            kept[row] = draws(self.merging.stream(t), start, taus.shape[1]) < limits[ranks]
            if transform.divide(values):
                taus[row] /= chances[ranks]
            taus[row, ~kept[row]] = 0
