"""What looks at a whole tensor, or at each matrix of a stack, in memory.

Aggregates of whole tensors; and any other with a transform of matrices before it, or a finish
after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.routes import general
from breadcrumbs.engine.routes.general import added, checked, count_kept, unscaled
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.methods import algebra
from breadcrumbs.methods.aggregates import Whole, matrices, ordering
from breadcrumbs.methods.aggregates.turns import Turns
from breadcrumbs.plan import statistics
from breadcrumbs.plan.units import Segment, by_entry

NO_ROWS = np.empty((0, 0))


def merge(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment, which is a tensor or a part of one that stands by itself."""
    if not terms.lowered.in_memory:
        return None
    it, report = Vectors(terms), SegmentReport([0] * terms.number)
    if by_entry(terms.context.plan, terms.tensor, terms.job.chunk):
        merged = Merged([], report)
        merged.pieces = _in_chunks(it, segment, merged)
        return merged
    lowered, merged = terms.lowered, Merged([], report)
    with algebra.on(terms.context.plan.recipe.device):
        if lowered.whole is None and lowered.shaped is None:
            found = _by_chunks(it, segment, report)
        else:
            whole = _read(it, segment, report)
            if lowered.shaped is not None:
                _shape(it, whole.taus)
            found = _found(it, segment, whole, report)
            del whole  # a finish reads the task vectors again, unchanged
        if lowered.finish is not None:
            _finish(it, segment, found)
    merged.pieces = _pieces(it, segment, found, merged)
    return merged


def _pieces(
    it: Vectors, segment: Segment, found: np.ndarray, merged: Merged
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield what was found with the base, which is read again, so that it need not be held.

    All of it at once unless it is large.
    """
    n, chunk = found.size, it.job.chunk
    step = n if n < it.context.plan.sizes.turns or it.context.replay else chunk
    for first in range(0, n, step):
        start, mine = segment.start + first, found[first : first + step]
        raw, untouched = it.terms.base(start, mine.size)
        base = it.terms.kernels.widen(raw).astype(np.float64)
        yield start, added(it, Chunk(start, base, NO_ROWS, NO_ROWS, untouched), mine, merged)


def _by_chunks(it: Vectors, segment: Segment, report: SegmentReport) -> np.ndarray:
    """Return what an aggregate of entries finds of a segment, before its factor."""
    found = np.empty(segment.stop - segment.start)
    for chunk in it.chunks(segment, again=True):
        mine = general.found_of(it, chunk, None, segment, report)
        found[chunk.start - segment.start :][: mine.size] = mine
        count_kept(it, chunk.kept, report)
    return found


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
    n, aggregate = whole.base.size, it.lowered.whole
    if aggregate is None:
        found = np.empty(n)
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
    found = np.empty(n if size < n else 0)
    for first in range(0, n, size):
        part, mine = slice(first, first + size), shape
        if first + size > n:  # the last runs
            mine = (n - first,)
        made = _combined(it, aggregate, whole.base[part], whole.taus[:, part], mine)
        if aggregate.counts:
            made, kept = made
            for t, number in zip(it.all, kept, strict=True):
                report.kept[t] += number
        made = checked(it, made, mine)
        if size >= n:
            return made.copy() if _is_used(made, whole.base) else made
        found[part] = made
    return found


def _is_used(array: np.ndarray, base: np.ndarray) -> bool:
    """Return whether an array may not be written to, or others would see it."""
    return not array.flags.writeable or np.may_share_memory(array, base)


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
    n, size = found.size, math.prod(shape)
    if size == n >= it.context.plan.sizes.turns:
        taus = _in_turns(it, segment, shape)
        if len(taus) and found.any():
            made = finish.change(found.reshape(shape), taus, unscaled(it))
            found[:] = checked(it, made, shape)
        found /= before
        return
    taus = it.unchanged(segment)
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


def _in_turns(it: Vectors, segment: Segment, shape: tuple[int, ...]) -> Turns:
    """Return the task vectors as a finish takes them, of which one is held at a time."""

    def parts(t: int) -> Iterator[tuple[int, np.ndarray]]:
        weight = it.weights[it.all.index(t)]
        for start, tau in it.unchanged_one(segment, t):
            tau *= weight
            yield start - segment.start, tau

    keys = []
    for t in it.all:
        content, there = blake3(), False
        for _, tau in parts(t):
            content.update(tau.data.cast("B"))
            there = there or bool(tau.any())
        if there:
            keys.append((content.digest(), t))
    order = [t for _, t in sorted(keys)]

    def make(number: int) -> np.ndarray:
        row = np.empty(segment.stop - segment.start)
        for first, tau in parts(order[number]):
            row[first : first + tau.size] = tau
        return row.reshape(shape)

    return Turns((len(order), *shape), make)


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
