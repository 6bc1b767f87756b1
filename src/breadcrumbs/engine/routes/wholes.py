"""What looks at a whole tensor, or at each matrix of a stack, in memory.

Aggregates of whole tensors; and any other with a transform of matrices before it, or a finish
after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from breadcrumbs import algebra
from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.routes import general
from breadcrumbs.engine.routes.general import added, checked, count_kept, unscaled
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.methods.aggregates import Whole, matrices, ordering
from breadcrumbs.plan import statistics
from breadcrumbs.plan.units import Segment, by_entry


def merge(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment, which is a tensor or a part of one that stands by itself."""
    if not terms.lowered.in_memory:
        return None
    it, report = Vectors(terms), SegmentReport([0] * terms.number)
    if by_entry(terms.context.plan, terms.tensor, terms.job.chunk):
        merged = Merged([], report)
        merged.pieces = _in_chunks(it, segment, merged)
        return merged
    whole = _read(it, segment, report)
    with algebra.on(terms.context.plan.recipe.device):
        if terms.lowered.shaped is not None:
            _shape(it, whole.taus)
        found = _found(it, segment, whole, report)
        if terms.lowered.finish is not None:
            none = np.empty((0, 0))
            whole = whole._replace(taus=none, kept=none)  # the finish reads them again, unchanged
            _finish(it, segment, found)
    merged = Merged([], report)
    merged.pieces = [(segment.start, added(it, whole, found, merged))]
    return merged


def _in_chunks(it: Vectors, segment: Segment, merged: Merged) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the merged chunks of a segment, in the order of models that is that of all of it."""
    aggregate, report = it.lowered.whole, merged.report
    order = list(range(len(it.all)))
    if aggregate is not None and not aggregate.ordered and len(order) > 1:
        content = ordering.Content(it.weights)
        for chunk in it.chunks(segment, again=True):
            content.add(it.everyone(chunk.taus))
        order = content.order()
    for chunk in it.chunks(segment, again=True):
        count_kept(it, chunk.kept, report)
        if aggregate is None:
            found = general.found_of(it, chunk, None, segment, report)
        else:
            taus, weights = it.everyone(chunk.taus), it.weights[order].tolist()
            ordering.permute(taus, order)
            made = aggregate.combine(chunk.base, taus, weights, unscaled(it))
            found = checked(it, made, chunk.base.shape)
        yield chunk.start, added(it, chunk, found, merged)


def _read(it: Vectors, segment: Segment, report: SegmentReport) -> Chunk:
    """Return all of a segment at once: for aggregates of whole tensors, a row for every model."""
    n, every = segment.stop - segment.start, it.lowered.whole is not None
    rows = len(it.all if every else it.terms.who)
    base, taus = np.empty(n), np.zeros((rows, n))
    kept = np.empty((0 if every else rows, n), np.bool_)
    untouched = []
    for chunk in it.chunks(segment, again=True):
        first = chunk.start - segment.start
        at = slice(first, first + chunk.base.size)
        base[at], taus[:, at] = chunk.base, it.everyone(chunk.taus) if every else chunk.taus
        if not every:
            kept[:, at] = chunk.kept
        untouched.append(chunk.untouched + first)
        if it.lowered.whole is None or not it.lowered.whole.counts:
            count_kept(it, chunk.kept, report)
    return Chunk(segment.start, base, taus, kept, np.concatenate(untouched))


def _found(it: Vectors, segment: Segment, whole: Chunk, report: SegmentReport) -> np.ndarray:
    """Return what the aggregate finds, before its factor. The task vectors may be overwritten."""
    n, found, aggregate = whole.base.size, np.empty(whole.base.size), it.lowered.whole
    if aggregate is None:
        for first in range(0, n, it.job.chunk):
            at = slice(first, min(n, first + it.job.chunk))
            taus, kept = np.ascontiguousarray(whole.taus[:, at]), whole.kept[:, at]
            chunk = Chunk(segment.start + first, whole.base[at], taus, kept, whole.untouched)
            found[at] = general.found_of(it, chunk, None, segment, report)
        return found
    shape = aggregate.each(it.tensor.name, it.tensor.base.shape, it.values)
    if aggregate.run(it.values):
        chunk = max(1, it.context.plan.sizes.chunk // aggregate.run(it.values))
        shape = (min(n, chunk * aggregate.run(it.values)),)
    size = math.prod(shape)
    for first in range(0, n, size):
        part, mine = slice(first, first + size), shape
        if first + size > n:  # the last runs
            mine = (n - first,)
        made = _combined(it, aggregate, whole.base[part], whole.taus[:, part], mine)
        if aggregate.counts:
            made, kept = made
            for t, number in zip(it.all, kept, strict=True):
                report.kept[t] += number
        found[part] = checked(it, made, mine)
    return found


def _combined(
    it: Vectors, aggregate: Whole, base: np.ndarray, taus: np.ndarray, shape: tuple[int, ...]
) -> Any:
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


def _shape(it: Vectors, taus: np.ndarray) -> None:
    """Change each matrix of the task vectors (T, n) in place."""
    transform = it.lowered.shaped
    assert transform is not None
    shape = matrices.each(it.tensor.name, it.tensor.base.shape, it.values)
    if len(shape) != 2:
        return
    size, who = math.prod(shape), it.all if it.lowered.whole else it.terms.who
    for first in range(0, taus.shape[1], size):
        for row, t in zip(taus[:, first : first + size], who, strict=True):
            if row.any():
                made = transform.change(row.reshape(shape), it.tensor.own[t].values)
                row[:] = checked(it, made, shape)


def _finish(it: Vectors, segment: Segment, found: np.ndarray) -> None:
    """Change each matrix of what was found in place, or all of it as one row."""
    finish = it.lowered.finish
    assert finish is not None
    shape = matrices.each(it.tensor.name, it.tensor.base.shape, it.values)
    if len(shape) != 2 and finish.rows:
        shape = (1, math.prod(shape))
    before = _before(it)
    if len(shape) != 2 or not before:
        return
    found *= before
    taus, size = it.unchanged(segment), math.prod(shape)
    taus *= it.weights[:, None]
    for first in range(0, found.size, size):
        part = slice(first, first + size)
        mine = taus[:, part]
        rows = np.flatnonzero(mine.any(axis=1))
        for row, there in enumerate(rows):  # in place: a copy may be as large as all else
            if row != there:
                mine[row] = mine[there]
        mine = np.ascontiguousarray(mine[: rows.size])
        if not len(mine) or not found[part].any():
            continue
        order = ordering.by_content(mine, np.ones(len(mine)))
        ordering.permute(mine, order)
        made = finish.change(found[part].reshape(shape), mine.reshape(-1, *shape), unscaled(it))
        found[part] = checked(it, made, shape)
    found /= before


def _before(it: Vectors) -> float:
    """Return what of the factor of what was found belongs to the step before alpha.

    The share of a mean, a common weight, the scale of drawn masks; 0 where nothing is added.
    """
    linear = it.lowered.linear
    if linear is None:
        return it.terms.scale if it.lowered.elementwise else 1.0
    if linear.place is not None:  # a factor of its own in each layer comes after
        return 1.0 if it.terms.factor else 0.0
    alpha = it.values.get("alpha", 1.0)
    return it.terms.factor / alpha if alpha else 0.0
