"""Any aggregate that is a function of entries: in float64, chunk by chunk, plainly.

Every step is a function of float64 task vectors; what it adds is rounded once, together with the
base.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.merged import Merged, Step, Undecided
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.passes import products
from breadcrumbs.engine.rounding import rounded
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.errors import MismatchError
from breadcrumbs.methods.aggregates import Entries
from breadcrumbs.methods.parameters import Values
from breadcrumbs.plan.units import Segment


def merge(terms: Terms, segment: Segment, majority: int | None) -> Merged:
    """Return the merged segment. majority: of the model so far, where it has a say."""
    it, report = Vectors(terms), SegmentReport([0] * terms.number)
    undecided = None if majority is None else Undecided(majority)
    merged = Merged([], report, undecided=undecided)
    pieces = []
    if it.plain and it.lowered.elementwise and undecided is None:
        merged.pieces = _in_blocks(it, segment, merged)
        return merged
    for chunk in it.chunks(segment, again=True):
        found = found_of(it, chunk, undecided, segment, report)
        count_kept(it, chunk.kept, report)
        pieces.append((chunk.start, added(it, chunk, found, merged)))
    merged.pieces = pieces
    return merged


def _in_blocks(it: Vectors, segment: Segment, merged: Merged) -> list[tuple[int, np.ndarray]]:
    """Return the merged pieces, chunks as ever, of which blocks are combined that stay in the
    cache."""
    size = min(it.job.chunk, segment.stop - segment.start)
    base, pieces = np.empty(size), []
    found, start = np.empty(size), segment.start
    for block in it.blocks(segment):
        at, n = block.start - start, block.base.size
        base[at : at + n] = block.base
        found[at : at + n] = found_of(it, block, None, segment, merged.report)
        count_kept(it, block.kept, merged.report)
        if at + n == size or block.start + n == segment.stop:
            whole = Chunk(start, base[: at + n], block.taus, block.kept, block.untouched)
            pieces.append((start, added(it, whole, found[: at + n], merged)))
            start += size
            if it.context.replay:  # which keeps it
                found = np.empty(size)
    return pieces


def found_of(
    it: Vectors, chunk: Chunk, undecided: Undecided | None, segment: Segment, report: SegmentReport
) -> np.ndarray:
    """Return what the aggregate finds of a chunk, before its factor."""
    if it.lowered.gram:
        known = it.context.facts.coefficients[it.tensor.name]
        return products.step(it, known, chunk.start, chunk.base, it.everyone(chunk.taus))
    aggregate = it.lowered.elementwise
    if aggregate:
        entries = it.present(chunk)
        entries.majority = undecided.elected if undecided else 1
        found = checked(it, aggregate.combine(entries, unscaled(it)), chunk.base.shape)
        report.counts.update(entries.counts)
        if undecided:
            _vote(it, chunk, entries, found, undecided, segment)
        return found
    return it.context.kernels.exact_sum(chunk.taus, it.terms.weights)


def _vote(
    it: Vectors,
    chunk: Chunk,
    entries: Entries,
    found: np.ndarray,
    undecided: Undecided,
    segment: Segment,
) -> None:
    """Count votes, and find out what the other majority would make of what was found."""
    aggregate = it.lowered.elementwise
    assert aggregate is not None and aggregate.vote is not None
    votes = aggregate.vote(entries)
    turned = replace(entries, majority=-entries.majority, counts=Counter())
    other = checked(it, aggregate.combine(turned, unscaled(it)), chunk.base.shape)
    where = np.flatnonzero(other != found)
    if entries.counts or it.context.replay or it.tensor.onto is not None:
        undecided.add_unknown(votes, where.size)
        return
    where = np.setdiff1d(where, chunk.untouched)
    step, less = _step(it, chunk.base, other)[where], _step(it, chunk.base, found)[where]
    try:
        out = _rounded(it, chunk.base[where], step)
    except MismatchError:  # which only counts if that is the majority
        undecided.add_unknown(votes, where.size)
        return
    more = float(np.einsum("i,i->", step, step) - np.einsum("i,i->", less, less))
    undecided.add(votes, where + (chunk.start - segment.start), out, more)


def unscaled(it: Vectors) -> Values:
    """Return the parameters as `combine` has them: without alpha, the factor of what it finds."""
    return {key: value for key, value in it.values.items() if key != "alpha"}


def checked(it: Vectors, found: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return what an aggregate found, flat; MismatchError if that is no array of that shape."""
    if np.shape(found) != shape:
        raise MismatchError(
            f"tensor {it.tensor.name!r}: `combine` of method {it.context.plan.method.name}"
            f" returned the shape {np.shape(found)}, not {shape}. Fix the method."
        )
    return np.asarray(found, np.float64).reshape(-1)


def _step(it: Vectors, base: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return what is added to the base: the factor times what an aggregate found."""
    if it.lowered.gram:
        return found
    if not it.lowered.linear:
        return it.alpha * found
    step = it.terms.factor * found
    return step + it.terms.more * base if it.terms.more else step


def _rounded(it: Vectors, base: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return base + step, both float64, as the output's dtype."""
    return rounded(it.context.kernels.add_step(base, step), it.tensor, it.terms.kernels)


def added(it: Vectors, chunk: Chunk, found: np.ndarray, merged: Merged) -> np.ndarray:
    """Return a chunk of the base, float64, plus the step that follows from ``found``.

    The step is noted in ``merged``; the chunk's task vectors are not looked at.
    """
    if it.context.replay:
        merged.steps.append(Step(chunk.start, found))
    base, step = chunk.base, _step(it, chunk.base, found)
    if it.tensor.onto is not None:
        raw = np.empty(base.size, DTYPES[it.tensor.onto.dtype])
        it.tensor.onto.read_into(chunk.start, raw)
        base = raw.astype(np.float64)
        if not np.isfinite(base).all():
            raise MismatchError(
                f"{it.context.plan.target.label}: tensor {it.tensor.name!r} is not finite,"
                " so nothing can be added to it."
            )
    out = _rounded(it, base, step)
    if chunk.untouched.size:
        original = np.empty(out.size, DTYPES[it.tensor.base.dtype])
        it.tensor.base.read_into(chunk.start, original)
        out[chunk.untouched] = original[chunk.untouched].astype(out.dtype)
    merged.report.squares += float(np.einsum("i,i->", step, step))
    return out


def count_kept(it: Vectors, kept: np.ndarray, report: SegmentReport) -> None:
    """Add what a chunk keeps to the report."""
    for t, mine in zip(it.terms.who, kept, strict=True):  # along an axis it is slow
        report.kept[t] += int(np.count_nonzero(mine))


def rescaled(terms: Terms, step: Step) -> np.ndarray:
    """Return a chunk merged from what an aggregate found before."""
    raw, untouched = terms.base(step.start, step.total.size)
    base = terms.kernels.widen(raw).astype(np.float64)
    none = np.empty((0, base.size))
    chunk = Chunk(step.start, base, none, none, untouched)
    return added(Vectors(terms), chunk, step.total, Merged([], SegmentReport([0] * terms.number)))
