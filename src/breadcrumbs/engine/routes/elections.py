"""Elections by the fused kernels, where they apply."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.merged import Merged, Step, Undecided
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.kernels.bounds import NO_EXTENT
from breadcrumbs.kernels.constants import MEAN, SUBSETS
from breadcrumbs.kernels.exact import shares as shares_of
from breadcrumbs.plan.units import Segment


def kind_of(terms: Terms) -> int | None:
    """Return the kind of the election, as the fused kernels have it; None if they know it not."""
    elementwise, lowered = terms.lowered.elementwise, terms.lowered
    if elementwise is None or elementwise.kind is None:
        return None
    known = (
        lowered.masks
        and not lowered.in_memory
        and terms.fused
        and terms.scales is None
        and not terms.careful
        and terms.tensor.onto is None
        and (len(terms.models) <= SUBSETS or not is_weighted(terms))
    )
    return elementwise.kind(terms.tensor.values) if known else None


def is_weighted(terms: Terms) -> bool:
    """Return whether any model counts other than once."""
    return bool((terms.given != 1).any())


@dataclass(frozen=True)
class _Part:
    """What is elected at once: raw weights, of which cuts or draws keep some, and the results.

    cuts: (units, T, 4), or none, and then ``drawn`` counts. results: factor, extent, raw output and
    steps, as the kernels take them. undecided: where the majority of the model is asked for.
    """

    base: np.ndarray
    models: np.ndarray
    unit: int
    cuts: np.ndarray
    drawn: tuple[np.ndarray, int, np.ndarray]
    kind: int
    results: tuple[float, np.ndarray, np.ndarray, np.ndarray]
    kept: np.ndarray
    undecided: Undecided | None

    @property
    def majority(self) -> int:
        return self.undecided.elected if self.undecided else 1


def fused(terms: Terms, segment: Segment, majority: int | None) -> Merged | None:
    """Return the merged segment, or None where the fused kernels may not do it.

    majority: of the model so far, where it has a say, and then all are in one part.
    """
    it, job = Vectors(terms), terms.job
    kind, band = kind_of(terms), terms.lowered.band
    if kind is None:
        return None
    cuts, replay = terms.cuts, terms.context.replay
    size = segment.stop - segment.start
    step = job.chunk if band and cuts is None else size
    kept = np.zeros(len(terms.models), np.int64)
    none = np.empty((0, len(terms.models), 4), np.int64)
    keys, limits = terms.draws_of()
    undecided = None if majority is None else Undecided(majority)
    merged = Merged([], SegmentReport([0] * terms.number), undecided=undecided)
    whole, pieces = terms.raw_buffer(size), []
    for start in range(segment.start, segment.stop, step):
        n = min(step, segment.stop - start)
        rows = terms.load_part(start, n)
        out = whole[start - segment.start :][:n]
        bits = np.array(NO_EXTENT, np.uint32)
        found = np.empty(n if replay else 0)
        unit, mine = n, none
        if band and cuts is None:
            unit, mine = terms.cuts_of(rows, slice(None), None)
        elif band:
            unit, mine = job.chunk, terms.of_segment(segment)
        results = it.alpha, bits, out, found
        drawn = keys, start, limits
        part = _Part(rows[0], rows[1:], unit, mine, drawn, kind, results, kept, undecided)
        squares, inexact = _elect(it, part)
        values = terms.accept(it.alpha * it.alpha * squares, inexact, bits, out, merged.report)
        if values is None:
            return None
        pieces.append((start, values))
        if replay:
            merged.steps.append(Step(start, found))
    merged.pieces = pieces
    terms.add_kept(kept, merged.report)
    terms.count_kept(segment, merged.report)
    return merged


def _elect(it: Vectors, part: _Part) -> tuple[float, bool | None]:
    """Return the sum of squares of the steps, and, with weights, whether the result is no use."""
    given = part.base, part.models
    if is_weighted(it.terms):
        return _elect_weighted(it, part)
    if not len(part.cuts):
        how = part.kind, part.majority, *part.results, part.kept
        return it.terms.kernels.elect_drawn(*given, *part.drawn, *how), None
    out = part.results[2]
    room = it.context.plan.sizes.undecided_of(part.base.size) if part.undecided else 0
    where = it.context.space.buffer("where", (room,), np.uint32)
    other = it.context.space.buffer("other", (room,), out.dtype)
    how = part.kind, part.majority, *part.results, where, other
    found = it.terms.kernels.elect_band(*given, part.unit, part.cuts, *how)
    squares, votes, number, more = found
    _tell(it, part, votes, number, where, other, more)
    return squares, None


def _elect_weighted(it: Vectors, part: _Part) -> tuple[float, bool]:
    weights, signed = it.terms.given, it.values["shares"] == "signed"
    shares = shares_of(weights, signed) if part.kind == MEAN else np.empty(1)
    alpha, bits, out, found = part.results
    given = part.base, part.models, part.unit, part.cuts, part.drawn, part.kind
    factors = weights, shares, alpha, bits
    kernel = it.terms.kernels.elect_weighted
    squares, votes, inexact = kernel(*given, part.majority, *factors, out, found, part.kept)
    if part.undecided and not inexact:
        other = np.empty_like(out)
        turned, _, _ = kernel(*given, -part.majority, *factors, other, np.empty(0), part.kept)
        where = np.flatnonzero(out != other)
        _tell(it, part, votes, where.size, where, other[where], turned - squares)
    return squares, inexact


def _tell(
    it: Vectors,
    part: _Part,
    votes: int,
    undecided: int,
    where: np.ndarray,
    other: np.ndarray,
    more: float,
) -> None:
    """Tell the votes, and what the other majority would make, where all of that is known."""
    if part.undecided is None:
        return
    known = undecided <= where.size and not it.context.replay
    other = other[:undecided]
    if known and math.isfinite(it.terms.kernels.extent(other)[1]):
        values = other.view(DTYPES[it.tensor.dtype])
        part.undecided.add(
            votes, where[:undecided].copy(), values.copy(), it.alpha * it.alpha * more
        )
    else:
        part.undecided.add_unknown(votes, undecided)
