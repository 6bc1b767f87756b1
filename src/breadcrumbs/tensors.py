"""The merging of tensors, chunk by chunk, whatever their dtypes, weights and number.

Sums are exact: each tensor's sum of task vectors is accumulated in float64 where
`work.provably_exact` says that no order of addition can round; elsewhere, and with weights other
than 1, with the rounding errors kept beside the sum; and where even that may round, by `math.fsum`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import work
from breadcrumbs.aggregates import Linear
from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.tensors import DTYPES, items
from breadcrumbs.draws import stream
from breadcrumbs.errors import MismatchError
from breadcrumbs.kernels import plain
from breadcrumbs.parameters import Values
from breadcrumbs.plan import TensorPlan
from breadcrumbs.sink import SegmentReport
from breadcrumbs.tasks import summing
from breadcrumbs.transforms import Band, Chances, Draw, Fitted, Transform
from breadcrumbs.work import FUSED, GROUP, PRECISION, Job, Segment

if TYPE_CHECKING:
    from breadcrumbs.engine import Engine


def copy(engine: Engine, tensor: TensorPlan, segment: Segment) -> SegmentReport:
    """Copy a segment of the base, byte for byte unless the output dtype differs.

    Of a statistic write the mean of the models' instead.
    """
    if any(tensor.mean):
        return _average(engine, tensor, segment)
    dtype = DTYPES[tensor.target.dtype]
    for start in range(segment.start, segment.stop, work.CHUNK):
        number = items(tensor.target.dtype, min(work.CHUNK, segment.stop - start))
        out = engine.buffer("out", (number,), dtype)
        tensor.target.read_into(start, out)
        if tensor.dtype != tensor.target.dtype:
            out = rounded(plain.widen(_widened(out)).astype(np.float64), tensor)
        engine.sink.write(segment.index, start, out)
    return SegmentReport([0] * len(engine.plan.models))


def _average(engine: Engine, tensor: TensorPlan, segment: Segment) -> SegmentReport:
    """Write the weighted mean of the models, exact but for one rounding, whatever their order.

    What a step is added to instead of the base counts as one more model.
    """
    both = zip(tensor.models, tensor.mean, strict=True)
    given = [(model, weight) for model, weight in both if model is not None and weight]
    given += [(tensor.onto, 1.0)] if tensor.onto is not None else []
    report = SegmentReport([0] * len(engine.plan.models))
    for start in range(segment.start, segment.stop, work.CHUNK):
        n = min(work.CHUNK, segment.stop - start)
        rows = np.empty((len(given), n))
        for row, (model, _) in zip(rows, given, strict=True):
            own = np.empty(n, DTYPES[model.dtype])
            model.read_into(start, own)
            row[:] = own
        base = np.empty(n, DTYPES[tensor.base.dtype])
        tensor.base.read_into(start, base)
        merged = _mean(rows, [weight for _, weight in given], DTYPES[tensor.dtype])
        if not np.isfinite(merged).all() or not np.isfinite(rows).all():
            raise MismatchError(
                f"tensor {tensor.name!r}: a statistic of a model is not finite. Repair the model,"
                " or `exclude` the tensor to keep the base's."
            )
        if (merged < 0).any() and kinds.is_variance(tensor.name):
            raise MismatchError(
                f"tensor {tensor.name!r}: a variance of a model is negative, so it was not merged"
                " rightly. Leave the model out, or `exclude` the tensor to keep the base's."
            )
        report.squares += float(np.square(merged - base.astype(np.float64)).sum())
        engine.sink.write(segment.index, start, rounded(merged, tensor))
    return report


def _mean(rows: np.ndarray, weights: Sequence[float], dtype: np.dtype) -> np.ndarray:
    """Return the weighted mean of rows, which rounds to a dtype as the exact one does.

    In float64 where all that its rounding can do leaves the result as it is, else in Python's exact
    fractions. Rows that are alike give themselves; of what is not finite comes anything.
    """
    alike, finite = (rows == rows[0]).all(axis=0), np.isfinite(rows).all(axis=0)
    factors = np.array(weights)
    with np.errstate(all="ignore"):
        merged = np.where(alike, rows[0], factors @ rows / factors.sum())
        most = np.abs(factors) @ np.abs(rows) / factors.sum() * 2.0**-48 + 1e-300
        near = (merged - most).astype(dtype) == (merged + most).astype(dtype)
    exact, total = [Fraction(weight) for weight in weights], sum(map(Fraction, weights))
    for i in np.flatnonzero(~alike & finite & ~near).tolist():
        column = zip(rows[:, i].tolist(), exact, strict=True)
        merged[i] = float(sum(Fraction(x) * weight for x, weight in column) / total)
    return merged


def _widened(values: np.ndarray) -> np.ndarray:
    """View bfloat16 as its bits; widen other narrow floats to float32."""
    if values.dtype == DTYPES["BF16"]:
        return values.view(np.uint16)
    return values if values.dtype.itemsize >= 4 else values.astype(np.float32)


def rounded(merged: np.ndarray, tensor: TensorPlan, kernels: ModuleType = plain) -> np.ndarray:
    """Return ``merged`` in the dtype of the output; MismatchError if a value does not fit it."""
    values = kernels.round_to(merged, tensor.dtype)
    if tensor.dtype in _RAW:
        fits = math.isfinite(kernels.extent(values.view(_RAW[tensor.dtype]))[1])
    else:
        narrow = values.astype(np.float32) if values.itemsize < 4 else values
        fits = bool(np.isfinite(narrow).all())
    if not fits:
        lost = ~np.isfinite(values.astype(np.float32) if values.itemsize < 4 else values)
        worst = float(merged[np.flatnonzero(lost)[0]])
        value = f"the merged value {worst:g}" if math.isfinite(worst) else "a merged value"
        raise MismatchError(
            f"tensor {tensor.name!r}: {value} does not fit {tensor.dtype}."
            " Give a wider output dtype, such as --dtype float64, or a smaller alpha."
        )
    return values


_ALL, _NO_MODELS = slice(None), slice(0, 0)


class Merging:
    """The merging of one tensor, or of the part of it that a job has."""

    def __init__(self, engine: Engine, job: Job, tensor: TensorPlan):
        plan = engine.plan
        self.engine, self.job, self.tensor = engine, job, tensor
        self.number = len(plan.models)
        weights = [own.weight for own in tensor.own]
        aggregate, transform = plan.method.aggregate, plan.method.transform
        models = tensor.models
        if isinstance(transform, Fitted) and transform.absent:
            models = [model or tensor.base for model in models]
        #: The models that count here: present, and of a weight other than 0.
        self.who = [t for t, m in enumerate(models) if m is not None and weights[t] != 0]
        self.models = [m for t in self.who if (m := models[t]) is not None]
        present = [weights[t] for t, m in enumerate(models) if m is not None]
        mine = [weights[t] for t in self.who]
        #: The weights as given, and the factor of a linear aggregate.
        self.given = np.array(mine, np.float64)
        #: What the transform multiplies task vectors by: all of them, or each, where that differs.
        values = [tensor.own[t].values for t in self.who]
        self.scale, self.scales = _scale(transform, values, engine.ratios.get(tensor.name))
        self.factor = 1.0
        #: How much of the base is added besides.
        self.more = 0.0
        if isinstance(aggregate, Linear):
            self.factor = aggregate.factor(tensor.values, present) * self.scale
            self.more = aggregate.more(tensor.values, present)
            if self.scales is not None:
                mine = (self.given * self.scales).tolist()
        if len(set(mine)) == 1:  # a common weight is part of the factor
            self.factor *= mine[0]
            mine = [1.0] * len(mine)
        elif not mine:
            self.factor = 0.0
        self.weights = np.array(mine, np.float64)
        self.dtype = job.dtype
        self.kernels: ModuleType = plain if self.dtype == np.float64 else engine.kernels
        self.precision = max(PRECISION[t.dtype] for t in (tensor.base, *self.models))
        self.careful = tensor.careful
        #: The probability of staying, and whether what stays is counted as it is added.
        self.keep = {t: 1.0 for t in self.who}
        if isinstance(transform, Draw):
            self.keep = {t: transform.keep(tensor.own[t].values) for t in self.who}
        self.counting = min(self.keep.values(), default=1.0) < 1
        #: Whether the step is a sum of the task vectors, which the kernels know, or something else.
        self.linear = (
            isinstance(aggregate, Linear)
            and not isinstance(transform, Chances | Fitted)
            and tensor.onto is None
            and self.more == 0
        )
        #: Whether all models are the base but for what task files keep, and are added up.
        self.sparse = self.linear and not self.counting and summing.apply(self)
        #: Whether their sums are to be pairs of numbers; `summing.merge` finds that out.
        self.pairs = False
        #: Whether the fused kernels do: few models and plain dtypes.
        self.fused = len(self.models) <= FUSED and self.dtype != np.float64 and tensor.dtype in _RAW
        #: The weights as they take them.
        self.unequal = self.weights if (self.weights != 1).any() else np.empty(0)

    def raw_buffer(self, n: int) -> np.ndarray:
        """Return this thread's buffer for n raw weights of the output."""
        return self.engine.buffer("whole", (n,), _RAW[self.tensor.dtype])

    # --- reading ---

    def read(self, start: int, n: int, group: slice | None = None) -> np.ndarray:
        """Return raw weights, (1 + models of the group, n): the base and then the models."""
        tensors = [self.tensor.base, *(self.models if group is None else self.models[group])]
        rows = self.engine.buffer("raw", (len(tensors), n), self.dtype)
        self.engine.read(tensors, start, rows)
        return rows

    def check(self, rows: np.ndarray, group: slice, start: int) -> tuple[float, float, np.ndarray]:
        """Return the extent of the magnitudes, and which entries of the base are not finite.

        A NaN or infinity is an error, or, where allowed, is made to count as unchanged.
        """
        smallest, largest = self.kernels.extent(rows)
        if math.isfinite(largest):
            return smallest, largest, _NONE
        wide = plain.widen(rows)
        bad = ~np.isfinite(wide)
        if not self.careful:
            row = int(np.flatnonzero(bad.any(axis=1))[0])
            at = start + int(np.flatnonzero(bad[row])[0])
            labels = [self.engine.plan.base.label]
            labels += [self.engine.plan.models[t].label for t in self.who[group]]
            value = wide[row, at - start]
            raise MismatchError(
                f"{labels[row]}: tensor {self.tensor.name!r} has {value} at entry {at}."
                " Repair the model, `exclude` the tensor, or give --allow-nonfinite to count such"
                " entries as unchanged."
            )
        base_bad = bad[0].copy()
        rows[:, base_bad] = 0
        for row in range(1, len(rows)):
            rows[row, bad[row]] = rows[0, bad[row]]
        smallest, largest = self.kernels.extent(rows)
        return smallest, largest, np.flatnonzero(base_bad)

    # --- writing ---

    def write(self, segment: Segment, cuts: np.ndarray | None) -> SegmentReport:
        """Merge a segment. cuts: (chunks of the job, models, 5) after a survey, as there."""
        report = SegmentReport([0] * self.number)
        chunk = self.job.chunk
        whole = self._merge_whole(segment, cuts, report)
        if whole is not None:
            self.engine.sink.write(segment.index, segment.start, whole)
            self.count_kept(segment, cuts, report)
            return report
        for i, start in enumerate(range(segment.start, segment.stop, chunk)):
            n = min(chunk, segment.stop - start)
            mine = None if cuts is None else cuts[segment.first_chunk + i, self.who, :4][None]
            self._write_chunk(segment.index, start, n, mine, report)
        self.count_kept(segment, cuts, report)
        return report

    def _merge_whole(
        self, segment: Segment, cuts: np.ndarray | None, report: SegmentReport
    ) -> np.ndarray | None:
        """Return the merged segment, or None where the fused kernels do not do it at once."""
        if self.sparse:
            merged = summing.merge(self, segment, report)
            if merged is not None:
                return merged
        transform = self.engine.plan.method.transform
        apply = self.fused and self.engine.steps is None
        if not apply or self.careful or (cuts is None and isinstance(transform, Band)):
            return None
        n, chunk = segment.stop - segment.start, self.job.chunk
        rows = self.engine.load([self.tensor.base, *self.models], segment.start, n, self.dtype)
        base, models = rows[0], rows[1:]
        out = self.raw_buffer(n)
        bits, kept = np.array(plain.NO_EXTENT, np.uint32), np.zeros(len(models), np.int64)
        settings = self.unequal, self.factor, bits, out
        if cuts is None:
            keys, limits = self.draws_of()
            drawn = keys, segment.start, limits
            squares, inexact = self.kernels.merge_drawn(base, models, *drawn, *settings, kept)
        else:
            mine = self.of_segment(segment, cuts)
            squares, inexact = self.kernels.merge_band(base, models, chunk, mine, *settings)
        result = self._accept_sum(squares, inexact, bits, out, report)
        if result is not None:
            self.add_kept(kept, report)
        return result

    def add_kept(self, kept: np.ndarray, report: SegmentReport) -> None:
        for t, number in zip(self.who, kept.tolist(), strict=True):
            report.kept[t] += number

    def of_segment(self, segment: Segment, cuts: np.ndarray) -> np.ndarray:
        """Return the cuts (chunks, models, 4) of a segment's chunks."""
        first, n = segment.first_chunk, segment.stop - segment.start
        return np.ascontiguousarray(cuts[first : first - (-n // self.job.chunk), self.who, :4])

    def _accept_sum(self, squares, inexact, bits, raw, report) -> np.ndarray | None:
        """Do as `accept` for what `merge_band` or `merge_drawn` made, squares of its sums."""
        judged = inexact if self.unequal.size else None
        return self.accept(self.factor * self.factor * squares, judged, bits, raw, report)

    def accept(
        self,
        squares: float,
        inexact: bool | None,
        bits: np.ndarray,
        raw: np.ndarray,
        report: SegmentReport,
    ) -> np.ndarray | None:
        """Return what a fused kernel made if it is right, as the output's dtype, else None.

        squares: those of the update, which are reported. inexact: what the kernel says of sums with
        weights; None for sums without, judged by ``bits``.
        """
        smallest, largest = plain.extent_of(bits, self.dtype)
        if inexact is None:
            number = len(self.models)
            inexact = not work.provably_exact(smallest, largest, number, self.precision)
        if not math.isfinite(largest) or inexact:
            return None
        if not math.isfinite(self.kernels.extent(raw)[1]):
            return None
        report.squares += squares
        return raw.view(DTYPES[self.tensor.dtype])

    def count_kept(self, segment: Segment, cuts: np.ndarray | None, report: SegmentReport) -> None:
        """Add what a segment keeps to its report, if ranks tell it."""
        if self.counting:
            return
        job, n = self.job, segment.stop - segment.start
        if cuts is not None:
            chunks = slice(segment.first_chunk, segment.first_chunk - (-n // job.chunk))
            for t in self.who:
                report.kept[t] += int(cuts[chunks, t, 4].sum())
            return
        for t in self.who:
            if isinstance(self.engine.plan.method.transform, Band):
                first, last = job.ranks[t]
                report.kept[t] += max(0, last - first) * (n // job.unit)
            else:
                report.kept[t] += summing.kept(self.engine.plan.models[t], self.tensor, t, segment)

    def _write_chunk(
        self, index: int, start: int, n: int, cuts: np.ndarray | None, report: SegmentReport
    ) -> None:
        out = self._merge_fast(start, n, cuts, report)
        if out is None:
            out = self._merge_any(start, n, cuts, report)
        self.engine.sink.write(index, start, out)

    def _merge_fast(
        self, start: int, n: int, cuts: np.ndarray | None, report: SegmentReport
    ) -> np.ndarray | None:
        """Return the merged chunk, or None where the fused kernels do not apply."""
        apply = self.fused and self.engine.steps is None
        if not apply or not isinstance(self.engine.plan.method.transform, Band):
            return None
        rows = self.read(start, n)
        raw = self.engine.buffer("out", (n,), _RAW[self.tensor.dtype])
        bits = np.array(plain.NO_EXTENT, np.uint32)
        unit, mine = self.cuts_of(rows, slice(0, FUSED), cuts)
        settings = self.unequal, self.factor, bits, raw
        squares, inexact = self.kernels.merge_band(rows[0], rows[1:], unit, mine, *settings)
        return self._accept_sum(squares, inexact, bits, raw, report)

    def _merge_any(
        self,
        start: int,
        n: int,
        cuts: np.ndarray | None,
        report: SegmentReport,
        pair: bool = False,
    ) -> np.ndarray:
        """Return the merged chunk, whatever the dtypes, weights and number of models."""
        pair = pair or self.unequal.size > 0
        total = self.engine.buffer("total", (n,), np.float64)
        rest = self.engine.buffer("rest", (n if pair else 0,), np.float64)
        inexact = self.engine.buffer("inexact", (n if pair else 0,), np.uint8)
        for sums in (total, rest, inexact):
            sums[:] = 0
        smallest, largest, untouched = math.inf, 0.0, _NONE
        kept = [0] * self.number
        for group in self.groups():
            rows = self.read(start, n, group)
            low, high, untouched = self.check(rows, group, start)
            smallest, largest = min(smallest, low), max(largest, high)
            self._add(rows, group, start, cuts, total, rest, inexact, kept)
        if not pair and not work.provably_exact(
            smallest, largest, len(self.models), self.precision
        ):
            return self._merge_any(start, n, cuts, report, pair=True)
        report.kept = [a + b for a, b in zip(report.kept, kept, strict=True)]
        if pair:  # make total the correctly rounded sum, whatever the order it was added in
            plain.settle(total, rest)
        if inexact.any():
            self._add_exactly(start, n, cuts, total, rest, np.flatnonzero(inexact))
        report.squares += self.factor * self.factor * float(np.einsum("i,i->", total, total))
        if self.engine.steps is not None:
            self.engine.steps.keep(self.tensor, start, total, rest)
        return self.add(start, rows[0], total, rest, untouched)

    def add(
        self,
        start: int,
        base: np.ndarray,
        total: np.ndarray,
        rest: np.ndarray,
        untouched: np.ndarray,
    ) -> np.ndarray:
        """Return a chunk of the base plus the factor times the sums, as the output's dtype.

        untouched: entries of the base that stay as they are, since they are not finite.
        """
        n = base.size
        merged = self.kernels.merge(base, total, rest, self.factor)
        zeros = np.flatnonzero(merged == 0)
        if zeros.size:
            base_at, total_at = base[zeros], total[zeros]
            models_at = np.concatenate(
                [self._checked(start, n, group)[1:, zeros] for group in self.groups()]
            )
            signed = merged[zeros]
            plain.sign_zeros(signed, np.arange(zeros.size), base_at, models_at, total_at)
            merged[zeros] = signed
        out = rounded(merged, self.tensor, self.kernels)
        if untouched.size:
            original = self.engine.buffer("original", (n,), DTYPES[self.tensor.base.dtype])
            self.tensor.base.read_into(start, original)
            out[untouched] = original[untouched].astype(out.dtype)
        return out

    def rescale(self, index: int, start: int, total: np.ndarray, rest: np.ndarray) -> None:
        """Write a chunk from sums that were kept."""
        base, untouched = self.base(start, total.size)
        self.engine.sink.write(index, start, self.add(start, base, total, rest, untouched))

    def base(self, start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return raw weights (n,) of the base, and which of them stay as they are."""
        rows = self.read(start, n, _NO_MODELS)
        return rows[0], self.check(rows, _NO_MODELS, start)[2] if self.careful else _NONE

    def groups(self) -> list[slice]:
        """Return the slices of the models that are read at once; one at least."""
        return [slice(i, i + GROUP) for i in range(0, max(1, len(self.models)), GROUP)]

    def _checked(self, start: int, n: int, group: slice) -> np.ndarray:
        rows = self.read(start, n, group)
        if self.careful:
            self.check(rows, group, start)
        return rows

    def cuts_of(
        self, rows: np.ndarray, group: slice, cuts: np.ndarray | None
    ) -> tuple[int, np.ndarray]:
        """Return (unit, cuts of its units) for a chunk of raw rows."""
        if cuts is not None:
            return rows.shape[1], np.ascontiguousarray(cuts[:, group])
        unit, ranks = self.job.unit, [self.job.ranks[t] for t in self.who[group]]
        base, models = rows[0], rows[1:]
        if len(set(ranks)) <= 1:
            return unit, self.kernels.cut_units(base, models, unit, *(ranks or [(0, 0)])[0])
        mine = [
            self.kernels.cut_units(base, models[i : i + 1], unit, *pair)
            for i, pair in enumerate(ranks)
        ]
        return unit, np.concatenate(mine, axis=1)

    def _add(self, rows, group, start, cuts, total, rest, inexact, kept) -> None:
        """Add what stays of a group of models to the sums."""
        base, models, sums = rows[0], rows[1:], (total, rest, inexact)
        if isinstance(self.engine.plan.method.transform, Band):
            unit, mine = self.cuts_of(rows, group, cuts)
            self.kernels.add_band(base, models, unit, mine, self.weights[group], *sums)
            return
        keys, limits = self.draws_of(group)
        number = np.zeros(len(models), np.int64)
        settings = keys, start, limits, self.weights[group]
        self.kernels.add_drawn(base, models, *settings, *sums, number)
        for t, more in zip(self.who[group], number.tolist(), strict=True):
            kept[t] += more

    def draws_of(self, group: slice = _ALL) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys of the draws of a group of models, and their limits; none if all stay."""
        who = self.who[group]
        if not self.counting:
            return np.empty(0, np.uint64), np.empty(0, np.uint32)
        keys = np.array([self.stream(t) for t in who], np.uint64)
        limits = [min(math.floor(self.keep[t] * 2**32), plain.ALL) for t in who]
        return keys, np.array(limits, np.uint32)

    def stream(self, t: int) -> np.uint64:
        """Return the key of the draws of model t for this tensor."""
        recipe = self.engine.plan.recipe
        return stream(recipe.seed, recipe.models[t].name, self.tensor.inner)

    def _add_exactly(self, start, n, cuts, total, rest, where) -> None:
        """Redo the sums at the entries ``where`` with unlimited precision."""
        terms = []
        for t in range(len(self.models)):
            group = slice(t, t + 1)
            rows = self._checked(start, n, group)
            base, model = rows
            if isinstance(self.engine.plan.method.transform, Band):
                unit, mine = self.cuts_of(rows, group, cuts)
                keys = plain.magnitudes(base, model)
                keep = np.concatenate(
                    [
                        plain.band(keys[u * unit : (u + 1) * unit], cut)
                        for u, cut in enumerate(mine[:, 0])
                    ]
                )[where]
            else:
                keys, limits = self.draws_of(group)
                keep = plain.drawn(n, keys, start, limits, 0)[where]
            x = plain.widen(model[where]).astype(np.float64)
            y = plain.widen(base[where]).astype(np.float64)
            tau = x - y
            lost = plain.two_sum(x, -y, tau)
            weight = self.weights[t]
            terms += [np.where(keep, weight * tau, 0.0), np.where(keep, weight * lost, 0.0)]
        for i, column in zip(where, np.array(terms).T.tolist(), strict=True):
            total[i] = math.fsum(column)
            rest[i] = math.fsum([*column, -total[i]])


def _scale(
    transform: Transform, values: list[Values], ratios: np.ndarray | None
) -> tuple[float, np.ndarray | None]:
    """Return the factor of all task vectors, or 1 and that of each where they differ."""
    scales = [1.0] * len(values) if ratios is None else ratios.tolist()
    if isinstance(transform, Draw):
        scales = [transform.scale(v) * scale for v, scale in zip(values, scales, strict=True)]
    if not scales:
        return 1.0, None
    if len(set(scales)) == 1:
        return scales[0], None
    return 1.0, np.array(scales, np.float64)


_NONE = np.empty(0, np.int64)
_RAW = {"BF16": np.dtype(np.uint16), "F32": np.dtype(np.float32)}
