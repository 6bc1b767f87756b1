"""The task vectors of one tensor in float64: read, transformed and rescaled, chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from breadcrumbs.aggregates import Aggregate, Elementwise, Linear, Whole
from breadcrumbs.kernels import plain
from breadcrumbs.tensors import Merging
from breadcrumbs.transforms import Band, Chances, Draw, Fitted
from breadcrumbs.work import Segment

#: The L1 norm that a task vector must have to be rescaled by it.
LEAST_NORM = 1e-7


class Reading:
    """The reading of one tensor, or of the part of it that a job has."""

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

    def fit(self, segments: list[Segment]) -> Any:
        """Return what a `Fitted` transform must know of the tensor."""
        assert isinstance(self.transform, Fitted)

        def begin() -> Iterator[np.ndarray]:
            for segment in segments:
                yield from (taus for _, _, _, taus, _, _ in self.chunks(segment, None, again=True))

        return self.transform.fit(begin, self.values, self.engine.kernels)

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

    def task_vectors(
        self, segment: Segment, cuts: np.ndarray | None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (start, transformed task vectors of all models (T, n)), chunk by chunk."""
        if isinstance(self.transform, Draw):
            self.scale = self.transform.scale(self.values)
        for start, _, _, taus, _, _ in self.chunks(segment, cuts):
            yield start, self.everyone(taus)

    def everyone(self, taus: np.ndarray) -> np.ndarray:
        """Return rows for all models, zeros for those that lack the tensor."""
        if len(self.all) == len(taus):
            return taus
        result = np.zeros((len(self.all), taus.shape[1]), taus.dtype)
        result[[self.all.index(t) for t in self.merging.who]] = taus
        return result

    def chunks(
        self, segment: Segment, cuts: np.ndarray | None, again: bool = False
    ) -> Iterator[tuple]:
        """Yield (start, n, base, transformed task vectors, kept, entries that stay as they are).

        again: whether a chunk is done with when the next is asked for, so that they share memory.
        """
        chunk, who = self.job.chunk, self.merging.who
        for i, start in enumerate(range(segment.start, segment.stop, chunk)):
            n = min(chunk, segment.stop - start)
            mine = None if cuts is None else cuts[segment.first_chunk + i, who, :4][None]
            yield (start, n, *self._entries(start, n, mine, again))

    def _entries(self, start: int, n: int, cuts: np.ndarray | None, again: bool) -> tuple:
        merging, shape = self.merging, (len(self.merging.who), n)
        buffer = self.engine.buffer
        taus = buffer("taus", shape, np.float64) if again else np.empty(shape)
        kept = buffer("kept", shape, np.bool_) if again else np.empty(shape, np.bool_)
        kept[:] = True
        base = np.empty(n)
        untouched = np.empty(0, np.int64)
        for group in merging.groups():
            rows = merging.read(start, n, group)
            _, _, untouched = merging.check(rows, group, start)
            base = plain.widen(rows[0]).astype(np.float64)
            mine = taus[group]
            if not isinstance(self.transform, Chances):  # which writes them by itself
                for row, tau in zip(rows[1:], mine, strict=True):  # fresh pages are few so
                    np.subtract(plain.widen(row), base, out=tau)
                self._sharpen(start, group, mine)
            self._transform(rows, group, start, cuts, mine, kept[group])
            if self.scales is not None:
                mine *= self.scales[group, None]
            elif self.scale != 1:
                mine *= self.scale
        if isinstance(self.transform, Fitted) and self.tensor.name in self.engine.fits:
            known = self.engine.fits[self.tensor.name]
            taus = self.transform.change(taus, known, self.values, self.engine.kernels)
        return base, taus, kept, untouched

    def _sharpen(self, start: int, group: slice, taus: np.ndarray) -> None:
        """Replace task vectors that are known as products of thin matrices by these products.

        For aggregates of whole tensors, which look at directions: the rounding of base + product
        to weights has all directions, and a product no more than its rank.
        """
        if not isinstance(self.aggregate, Whole):
            return
        for model, tau in zip(self.merging.models[group], taus, strict=True):
            change = getattr(model.source, "change", None)
            if change is not None:
                change(start, tau)

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
            self._keep_by_rank(transform, rows, group, start, taus, kept)

    def _keep_by_rank(self, transform: Chances, rows, group, start, taus, kept) -> None:
        unit, known = self.job.unit, {}
        for row, t in enumerate(self.merging.who[group]):
            values = self.tensor.own[t].values
            if id(values) not in known:
                chances = np.asarray(transform.chances(unit, values), np.float64)
                known[id(values)] = chances, bool(transform.divide(values))
            drawn = unit, self.merging.stream(t), start, *known[id(values)]
            self.merging.kernels.keep_by_rank(rows[0], rows[1 + row], *drawn, taus[row], kept[row])
