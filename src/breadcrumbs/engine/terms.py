"""The terms of a sum over models: of one tensor, who takes part, with what weight, read how."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from breadcrumbs.checkpoint.sparse import Sparse
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.exactness import PRECISION, provably_exact
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.rounding import RAW
from breadcrumbs.errors import MismatchError
from breadcrumbs.kernels.bounds import extent_of
from breadcrumbs.kernels.constants import ALL as ALL_DRAWS
from breadcrumbs.kernels.draws import stream
from breadcrumbs.methods.parameters import Values
from breadcrumbs.methods.transforms import Draw
from breadcrumbs.plan import TensorPlan
from breadcrumbs.plan.units import Job, Segment

ALL, NO_MODELS = slice(None), slice(0, 0)
NONE = np.empty(0, np.int64)
#: What bfloat16 and float32 hold for sure.
RANGE = 2.0**127


class Terms:
    """What is merged of one tensor, or of the part of it that a job has, and how it is read."""

    def __init__(self, context: Context, job: Job, tensor: TensorPlan):
        plan = context.plan
        self.context, self.job, self.tensor = context, job, tensor
        self.number = len(plan.models)
        weights = [own.weight for own in tensor.own]
        lowered = self.lowered = plan.lowered
        models = tensor.models
        if lowered.fitted and lowered.fitted.absent:
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
        self.scale, self.scales = _scale(lowered.draw, values, context.facts.norms.get(tensor.name))
        self.factor = 1.0
        #: How much of the base is added besides.
        self.more = 0.0
        if lowered.linear:
            self.factor = lowered.linear.factor(tensor.values, present) * self.scale
            self.more = lowered.linear.more(tensor.values, present)
            if self.scales is not None:
                mine = (self.given * self.scales).tolist()
        if len(set(mine)) == 1:  # a common weight is part of the factor
            self.factor *= mine[0]
            mine = [1.0] * len(mine)
        elif not mine:
            self.factor = 0.0
        self.weights = np.array(mine, np.float64)
        self.dtype = job.dtype
        self.kernels = context.kernels_for(self.dtype)
        self.precision = max(PRECISION[t.dtype] for t in (tensor.base, *self.models))
        self.careful = tensor.careful
        #: The probability of staying, and whether what stays is counted as it is added.
        self.keep = {t: 1.0 for t in self.who}
        if lowered.draw:
            self.keep = {t: lowered.draw.keep(tensor.own[t].values) for t in self.who}
        self.counting = min(self.keep.values(), default=1.0) < 1
        #: Whether the step is a sum of the task vectors, which the kernels know, or something else.
        self.linear = (
            lowered.linear is not None
            and lowered.masks
            and not lowered.in_memory
            and tensor.onto is None
            and self.more == 0
        )
        #: Whether sums of what task files keep are to be pairs of numbers; `routes.sparse` finds
        #: that out.
        self.pairs = False
        #: Whether the fused kernels do: few models and plain dtypes.
        few = len(self.models) <= plan.sizes.fused
        self.fused = few and self.dtype != np.float64 and tensor.dtype in RAW
        #: The weights as they take them.
        self.unequal = self.weights if (self.weights != 1).any() else np.empty(0)
        #: How many times as large as the largest weight a merged one may be, where it is linear.
        self.reach = 1 + 2 * abs(self.factor) * float(np.abs(self.weights).sum())

    def raw_buffer(self, n: int) -> np.ndarray:
        """Return this thread's buffer for n raw weights of the output."""
        return self.context.space.buffer("whole", (n,), RAW[self.tensor.dtype])

    @property
    def cuts(self) -> np.ndarray | None:
        """The cuts (chunks of the job, models, 5) that a pass has found, if there was one."""
        return self.context.facts.cuts.get(self.job.unit_id)

    def chunks(self, segment: Segment) -> Iterator[tuple[int, int, np.ndarray | None]]:
        """Yield of each chunk of a segment: start, entries, and the cuts (1, T, 4) of it if any."""
        chunk, cuts = self.job.chunk, self.cuts
        for i, start in enumerate(range(segment.start, segment.stop, chunk)):
            n = min(chunk, segment.stop - start)
            mine = None if cuts is None else cuts[segment.first_chunk + i, self.who, :4][None]
            yield start, n, mine

    def load(self, segment: Segment) -> np.ndarray:
        """Return raw weights (1 + T, n) of a segment, not to be changed, the base's first."""
        return self.load_part(segment.start, segment.stop - segment.start)

    def load_part(self, start: int, n: int) -> np.ndarray:
        """Return raw weights as `load` does, of n entries from ``start`` on."""
        return self.context.space.load([self.tensor.base, *self.models], start, n, self.dtype)

    # --- reading ---

    def read(self, start: int, n: int, group: slice | None = None) -> np.ndarray:
        """Return raw weights, (1 + models of the group, n): the base and then the models."""
        tensors = [self.tensor.base, *(self.models if group is None else self.models[group])]
        rows = self.context.space.buffer("raw", (len(tensors), n), self.dtype)
        self.context.space.read(tensors, start, rows)
        return rows

    def check(self, rows: np.ndarray, group: slice, start: int) -> tuple[float, float, np.ndarray]:
        """Return the extent of the magnitudes, and which entries of the base are not finite.

        A NaN or infinity is an error, or, where allowed, is made to count as unchanged.
        """
        smallest, largest = self.kernels.extent(rows)
        if math.isfinite(largest):
            return smallest, largest, NONE
        wide = self.kernels.widen(rows)
        bad = ~np.isfinite(wide)
        if not self.careful:
            row = int(np.flatnonzero(bad.any(axis=1))[0])
            at = start + int(np.flatnonzero(bad[row])[0])
            labels = [self.context.plan.base.label]
            labels += [self.context.plan.models[t].label for t in self.who[group]]
            value = wide[row, at - start]
            raise MismatchError(
                f"{labels[row]}: tensor {self.tensor.name!r} has {value} at entry {at}."
                " Fix the model, `exclude` the tensor, or give --allow-nonfinite to count such"
                " entries as unchanged."
            )
        base_bad = bad[0].copy()
        rows[:, base_bad] = 0
        for row in range(1, len(rows)):
            rows[row, bad[row]] = rows[0, bad[row]]
        smallest, largest = self.kernels.extent(rows)
        return smallest, largest, np.flatnonzero(base_bad)

    def add_kept(self, kept: np.ndarray, report: SegmentReport) -> None:
        for t, number in zip(self.who, kept.tolist(), strict=True):
            report.kept[t] += number

    def of_segment(self, segment: Segment) -> np.ndarray:
        """Return the cuts (chunks, models, 4) of a segment's chunks."""
        cuts = self.cuts
        assert cuts is not None
        first, n = segment.first_chunk, segment.stop - segment.start
        return np.ascontiguousarray(cuts[first : first - (-n // self.job.chunk), self.who, :4])

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
        smallest, largest = extent_of(bits, self.dtype)
        if inexact is None:
            number = len(self.models)
            inexact = not provably_exact(smallest, largest, number, self.precision)
        if not math.isfinite(largest) or inexact:
            return None
        fits = self.linear and largest * self.reach < RANGE
        if not fits and not math.isfinite(self.kernels.extent(raw)[1]):
            return None
        report.squares += squares
        return raw.view(DTYPES[self.tensor.dtype])

    def count_kept(self, segment: Segment, report: SegmentReport) -> None:
        """Add what a segment keeps to its report, if ranks tell it."""
        if self.counting:
            return
        cuts, job, n = self.cuts, self.job, segment.stop - segment.start
        if cuts is not None:
            chunks = slice(segment.first_chunk, segment.first_chunk - (-n // job.chunk))
            for t in self.who:
                report.kept[t] += int(cuts[chunks, t, 4].sum())
            return
        for t in self.who:
            if self.lowered.band:
                first, last = job.ranks[t]
                report.kept[t] += max(0, last - first) * (n // job.unit)
            else:
                report.kept[t] += self._kept(t, segment)

    def _kept(self, t: int, segment: Segment) -> int:
        """Return how many entries of a segment model t keeps: all, unless a task file says it."""
        model = self.tensor.models[t]
        if self.context.plan.models[t].cut is None or model is None:
            return segment.stop - segment.start
        if not isinstance(model.source, Sparse):
            return 0
        return model.source.number(segment.start, segment.stop)

    def base(self, start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Return raw weights (n,) of the base, and which of them stay as they are."""
        rows = self.read(start, n, NO_MODELS)
        return rows[0], self.check(rows, NO_MODELS, start)[2] if self.careful else NONE

    def groups(self) -> list[slice]:
        """Return the slices of the models that are read at once; one at least."""
        size = self.context.plan.sizes.group
        return [slice(i, i + size) for i in range(0, max(1, len(self.models)), size)]

    def checked(self, start: int, n: int, group: slice) -> np.ndarray:
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

    def draws_of(self, group: slice = ALL) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys of the draws of a group of models, and their limits; none if all stay."""
        who = self.who[group]
        if not self.counting:
            return np.empty(0, np.uint64), np.empty(0, np.uint32)
        keys = np.array([self.stream(t) for t in who], np.uint64)
        limits = [min(math.floor(self.keep[t] * 2**32), ALL_DRAWS) for t in who]
        return keys, np.array(limits, np.uint32)

    def stream(self, t: int, inner: str = "") -> np.uint64:
        """Return the key of the draws of model t for this tensor, or one called ``inner``."""
        recipe = self.context.plan.recipe
        return stream(recipe.seed, recipe.models[t].name, inner or self.tensor.inner)


def _scale(
    draw: Draw | None, values: list[Values], ratios: np.ndarray | None
) -> tuple[float, np.ndarray | None]:
    """Return the factor of all task vectors, or 1 and that of each where they differ."""
    scales = [1.0] * len(values) if ratios is None else ratios.tolist()
    if draw:
        scales = [draw.scale(v) * scale for v, scale in zip(values, scales, strict=True)]
    if not scales:
        return 1.0, None
    if len(set(scales)) == 1:
        return scales[0], None
    return 1.0, np.array(scales, np.float64)
