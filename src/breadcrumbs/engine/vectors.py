"""The task vectors of one tensor in float64: read, transformed and rescaled, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from breadcrumbs.engine.terms import ALL, NONE, Terms
from breadcrumbs.methods.aggregates import Entries
from breadcrumbs.plan import statistics as plan_statistics
from breadcrumbs.plan.units import Segment


class Chunk(NamedTuple):
    """Some entries of a tensor, n of them from ``start`` on.

    base: (n,) float64. taus: (T, n) transformed task vectors of the models that have the tensor.
    kept: (T, n) which entries were not cut. untouched: which of the base stay as they are.
    """

    start: int
    base: np.ndarray
    taus: np.ndarray
    kept: np.ndarray
    untouched: np.ndarray


class Vectors:
    """The task vectors of one tensor, or of the part of it that a job has."""

    def __init__(self, terms: Terms):
        self.terms, self.context, self.job = terms, terms.context, terms.job
        self.tensor, self.values = terms.tensor, terms.tensor.values
        self.lowered = terms.lowered
        #: All models of a weight other than 0; an absent one counts as unchanged.
        weights = [own.weight for own in self.tensor.own]
        self.all = [t for t, weight in enumerate(weights) if weight != 0]
        self.weights = np.array([weights[t] for t in self.all], np.float64)
        #: Whether products of thin matrices stand for themselves.
        entrywise = self.lowered.elementwise
        self.sharp = self.lowered.in_memory or (entrywise is not None and entrywise.sharp)
        #: Factor of the step, and of the task vectors. Entries are rescaled last, so that opposite
        #: task vectors cancel.
        self.alpha: float = self.values.get("alpha", 1.0)
        self.scale = terms.scale
        self.scales = None if self.lowered.linear else terms.scales
        #: By the identity of values.
        self._chances: dict[int, tuple[np.ndarray, bool]] = {}
        if self.lowered.elementwise:
            self.alpha *= self.scale
        if self.lowered.elementwise or self.lowered.linear:  # the factor of which has it already
            self.scale = 1.0

    def task_vectors(self, segment: Segment) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (start, transformed task vectors of all models (T, n)), chunk by chunk."""
        if self.lowered.draw:
            self.scale = self.lowered.draw.scale(self.values)
        for chunk in self.chunks(segment):
            yield chunk.start, self.everyone(chunk.taus)

    def everyone(self, taus: np.ndarray) -> np.ndarray:
        """Return rows for all models, zeros for those that lack the tensor."""
        if len(self.all) == len(taus):
            return taus
        result = np.zeros((len(self.all), taus.shape[1]), taus.dtype)
        result[[self.all.index(t) for t in self.terms.who]] = taus
        return result

    def entries(self, segment: Segment, first: int) -> Iterator[Entries]:
        """Yield the entries of a segment, chunk by chunk, as aggregates see them.

        first: how many entries of the model come before the tensor's.
        """
        for chunk in self.blocks(segment) if self.plain else self.chunks(segment):
            yield self.present(chunk, first)

    @property
    def plain(self) -> bool:
        """Whether task vectors are what they are read as, so that any entries can be had."""
        products = self.sharp and any(hasattr(m.source, "change") for m in self.terms.models)
        one = self.scales is None and self.scale == 1 and not products
        few = len(self.terms.models) <= self.context.plan.sizes.fused
        return self.lowered.keeps_all and one and few and not self.terms.careful

    def blocks(self, segment: Segment) -> Iterator[Chunk]:
        """Yield what `chunks` does, in smaller pieces, which share memory and stay in the cache.

        The segment is read at once. For what is `plain`.
        """
        terms, sizes = self.terms, self.context.plan.sizes
        rows, models = terms.load(segment), len(terms.models)
        size = min(self.job.chunk, max(1 << 10, sizes.terms // max(1, models)))
        buffer = self.context.space.buffer
        base, taus = buffer("base", (size,), np.float64), buffer("taus", (models, size), np.float64)
        kept = buffer("kept", (models, size), np.bool_)
        kept[:] = True
        for start, whole, _ in terms.chunks(segment):
            for at in range(start, start + whole, size):
                n = min(size, start + whole - at)
                part, mine = rows[:, at - segment.start :][:, :n], (base[:n], taus[:, :n])
                if not terms.kernels.differences(part[0], part[1:], *mine):
                    terms.check(terms.read(start, whole), ALL, start)  # says where
                yield Chunk(at, *mine, kept[:, :n], NONE)

    def present(self, chunk: Chunk, first: int | None = None) -> Entries:
        """Return a chunk as aggregates see it. first: as for `entries`, if no pass has found it."""
        context, prepares = self.context, self.lowered.prepares
        statistics = context.plan.method.statistics
        aggregate = self.lowered.elementwise
        absent = aggregate is not None and aggregate.absent
        if statistics is None and not prepares and not absent:
            return Entries(chunk.taus, chunk.kept, self.terms.given, kernels=context.kernels)
        taus, kept = self.everyone(chunk.taus), self.everyone(chunk.kept)
        entries = Entries(taus, kept, self.weights, who=self.all)
        entries.narrow, entries.kernels = self.terms.dtype != np.float64, context.kernels
        if statistics is not None:
            given = context.space.buffer("statistics", taus.shape, np.float64)
            for row, t in zip(given, self.all, strict=True):
                plan_statistics.read_part(context.plan, self.tensor, t, chunk.start, row)
            entries.statistics = given
        if prepares:
            first = context.facts.starts.get(self.tensor.name, 0) if first is None else first
            entries.start = first + chunk.start
            mine = self.tensor.name if self.lowered.prepares_tensors else self.tensor.component
            entries.known = context.facts.model.get(mine)
        return entries

    def unchanged(self, segment: Segment) -> np.ndarray:
        """Return the task vectors (T, n) of all models in a segment, before any transform."""
        terms, result = self.terms, np.zeros((len(self.all), segment.stop - segment.start))
        who = [self.all.index(t) for t in terms.who]
        for start, n, _ in terms.chunks(segment):
            for group in terms.groups():
                rows = terms.read(start, n, group)
                terms.check(rows, group, start)
                mine = np.empty((len(rows) - 1, n))
                terms.kernels.differences(rows[0], rows[1:], np.empty(n), mine)
                self._sharpen(start, group, mine)
                first = start - segment.start
                result[who[group], first : first + n] = mine
        return result

    def unchanged_one(self, segment: Segment, t: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield of model t (start, its task vector (n,) before any transform), chunk by chunk."""
        terms, buffer = self.terms, self.context.space.buffer
        for start, n, _ in terms.chunks(segment):
            tau = buffer("taus", (1, n), np.float64)
            tau[:] = 0
            if t in terms.who:
                row = terms.who.index(t)
                group = slice(row, row + 1)
                rows = terms.read(start, n, group)
                terms.check(rows, group, start)
                terms.kernels.differences(rows[0], rows[1:], buffer("base", (n,), np.float64), tau)
                self._sharpen(start, group, tau)
            yield start, tau[0]

    def chunks(self, segment: Segment, again: bool = False) -> Iterator[Chunk]:
        """Yield the chunks of a segment.

        again: whether a chunk is done with when the next is asked for, so that they share memory.
        """
        for start, n, cuts in self.terms.chunks(segment):
            yield self._chunk(start, n, cuts, again)

    def one(self, segment: Segment, t: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield of model t (start, its transformed task vector (n,), what was kept), by chunks.

        They share memory. Zeros of a model that lacks the tensor.
        """
        terms, buffer = self.terms, self.context.space.buffer
        for start, n, cuts in terms.chunks(segment):
            tau, kept = buffer("taus", (1, n), np.float64), buffer("kept", (1, n), np.bool_)
            if t in terms.who:
                row = terms.who.index(t)
                group, base = slice(row, row + 1), buffer("base", (n,), np.float64)
                self._group(start, n, cuts, group, base, tau, kept)
            else:
                tau[:], kept[:] = 0, False
            yield start, tau[0], kept[0]

    def _chunk(self, start: int, n: int, cuts: np.ndarray | None, again: bool) -> Chunk:
        terms, shape = self.terms, (len(self.terms.who), n)
        buffer = self.context.space.buffer
        taus = buffer("taus", shape, np.float64) if again else np.empty(shape)
        kept = buffer("kept", shape, np.bool_) if again else np.empty(shape, np.bool_)
        base = np.empty(n)
        untouched = np.empty(0, np.int64)
        for group in terms.groups():
            untouched = self._group(start, n, cuts, group, base, taus[group], kept[group])
        fits, fitted = self.context.facts.fits, self.lowered.fitted
        if fitted and self.tensor.name in fits:
            known = fits[self.tensor.name]
            taus = fitted.change(taus, known, self.values, self.context.kernels)
        return Chunk(start, base, taus, kept, untouched)

    def _group(
        self,
        start: int,
        n: int,
        cuts: np.ndarray | None,
        group: slice,
        base: np.ndarray,
        taus: np.ndarray,
        kept: np.ndarray,
    ) -> np.ndarray:
        """Fill in the base, and of a group of models what it has of a chunk.

        Return which of the base stay as they are.
        """
        terms = self.terms
        rows = terms.read(start, n, group)
        untouched = terms.check(rows, group, start)[2]
        kept[:] = True
        # Chances write task vectors by themselves.
        models = rows[1:] if not self.lowered.chances else rows[:0]
        terms.kernels.differences(rows[0], models, base, taus[: len(models)])
        self._sharpen(start, group, taus[: len(models)])
        self.transformed(rows, group, start, cuts, taus, kept)
        if self.scales is not None:
            taus *= self.scales[group, None]
        elif self.scale != 1:
            taus *= self.scale
        return untouched

    def _sharpen(self, start: int, group: slice, taus: np.ndarray) -> None:
        """Replace task vectors that are known as products of thin matrices by these products.

        For aggregates of whole tensors, which look at directions: the rounding of base + product
        to weights has all directions, and a product no more than its rank.
        """
        if not self.sharp:
            return
        for model, tau in zip(self.terms.models[group], taus, strict=False):
            change = getattr(model.source, "change", None)
            if change is not None:
                change(start, tau)

    def transformed(self, rows, group, start, cuts, taus, kept) -> None:
        """Cut and scale the task vectors of a group of models, and note what was kept."""
        terms, lowered = self.terms, self.lowered
        if lowered.band:
            unit, mine = terms.cuts_of(rows, group, cuts)
            for t, keys in enumerate(terms.kernels.magnitudes(rows[0], rows[1:])):
                for u, cut in enumerate(mine[:, t]):
                    run = slice(u * unit, (u + 1) * unit)
                    kept[t, run] = terms.kernels.band(keys[run], cut)
            taus[~kept] = 0
        elif lowered.draw:
            keys, limits = terms.draws_of(group)
            for t in range(len(kept)):
                kept[t] = terms.kernels.drawn(rows.shape[1], keys, start, limits, t)
            taus[~kept] = 0
        elif lowered.chances:
            self._keep_by_rank(rows, group, start, taus, kept)

    def chances(self, t: int) -> tuple[np.ndarray, bool]:
        """Return the chances of the ranks of a unit of model t, and whether they divide."""
        transform, values = self.lowered.chances, self.tensor.own[t].values
        assert transform is not None
        if id(values) not in self._chances:
            found = np.asarray(transform.chances(self.job.unit, values), np.float64)
            self._chances[id(values)] = found, bool(transform.divide(values))
        return self._chances[id(values)]

    def _keep_by_rank(self, rows, group, start, taus, kept) -> None:
        for row, t in enumerate(self.terms.who[group]):
            drawn = self.job.unit, self.terms.stream(t), start, *self.chances(t)
            self.terms.kernels.keep_by_rank(rows[0], rows[1 + row], *drawn, taus[row], kept[row])
