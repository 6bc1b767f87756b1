"""Aggregates that look at a whole tensor, or at each matrix of a stack, in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.routes.general import added, checked, count_kept, unscaled
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.methods.aggregates import Whole, ordering
from breadcrumbs.plan import statistics
from breadcrumbs.plan.units import Segment


def merge(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment, which is a tensor or a part of one that stands by itself."""
    it, report = Vectors(terms), SegmentReport([0] * terms.number)
    aggregate = terms.lowered.whole
    if aggregate is None:
        return None
    shape = aggregate.each(it.tensor.name, it.tensor.base.shape, it.values)
    if aggregate.run(it.values):
        shape = (segment.stop - segment.start,)
    base = np.empty(segment.stop - segment.start)
    taus = np.zeros((len(it.all), base.size))
    untouched = []
    for chunk in it.chunks(segment, again=True):
        first = chunk.start - segment.start
        at = slice(first, first + chunk.base.size)
        base[at], taus[:, at] = chunk.base, it.everyone(chunk.taus)
        untouched.append(chunk.untouched + first)
        count_kept(it, chunk.kept, report)
    size, found = math.prod(shape), np.empty(base.size)
    for first in range(0, base.size, size):
        part = slice(first, first + size)
        found[part] = checked(it, _combined(it, aggregate, base[part], taus[:, part], shape), shape)
    merged = Merged([], report)
    whole = Chunk(segment.start, base, taus, taus[:0], np.concatenate(untouched))
    merged.pieces = [(segment.start, added(it, whole, found, merged))]
    return merged


def _combined(
    it: Vectors, aggregate: Whole, base: np.ndarray, taus: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Return what the aggregate makes of a matrix, or whatever has ``shape``."""
    order = list(range(len(taus)))
    if not aggregate.ordered and len(taus) > 1:  # else sums over models would differ
        order = ordering.by_content(taus, it.weights)
        ordering.permute(taus, order)
    given: list[Any] = [base.reshape(shape), taus.reshape(-1, *shape)]
    given += [it.weights[order].tolist(), unscaled(it)]
    if aggregate.statistics is not None:
        plan, who = it.context.plan, [it.all[t] for t in order]
        given.append(statistics.read_whole(plan, it.tensor, t) for t in who)
    return aggregate.combine(*given)
