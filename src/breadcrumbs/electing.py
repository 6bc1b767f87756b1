"""Elections by the fused kernels, where they apply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs.aggregates import Elementwise
from breadcrumbs.ballot import Ballot, Polling
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.kernels import plain
from breadcrumbs.sink import SegmentReport
from breadcrumbs.transforms import Band, Chances, Fitted
from breadcrumbs.work import FUSED, Segment

if TYPE_CHECKING:
    from breadcrumbs.combining import Combining

#: Room for undecided entries: one of so many, and some more. Segments with more are merged again.
ROOM, LEAST = 8, 64


def _is_election(it: Combining) -> bool:
    """Whether the fused kernels know this aggregate."""
    merging, number = it.merging, len(it.merging.models)
    return (
        isinstance(it.aggregate, Elementwise)
        and it.aggregate.kind is not None
        and not isinstance(it.transform, Chances | Fitted)
        and merging.fused
        and it.scales is None
        and not merging.careful
        and it.tensor.onto is None
        and (number <= plain.SUBSETS or not _weighted(it))
    )


def _weighted(it: Combining) -> bool:
    return bool((it.merging.given != 1).any())


@dataclass(frozen=True)
class _Part:
    """What is elected at once: raw weights, of which cuts or draws keep some, and the results.

    cuts: (units, T, 4), or none, and then ``drawn`` counts. results: factor, extent, raw output and
    steps, as the kernels take them. polling: where the majority of the model is asked for.
    """

    base: np.ndarray
    models: np.ndarray
    unit: int
    cuts: np.ndarray
    drawn: tuple
    kind: int
    results: tuple[float, np.ndarray, np.ndarray, np.ndarray]
    kept: np.ndarray
    polling: Polling | None

    @property
    def majority(self) -> int:
        return self.polling.majority if self.polling else 1


def elect(
    it: Combining,
    segment: Segment,
    cuts: np.ndarray | None,
    ballot: Ballot | None,
    report: SegmentReport,
) -> bool:
    """Merge a segment by the fused kernels; return whether they may."""
    merging, job = it.merging, it.job
    if not _is_election(it):
        return False
    assert isinstance(it.aggregate, Elementwise) and it.aggregate.kind
    kind, band = it.aggregate.kind(it.values), isinstance(it.transform, Band)
    step = job.chunk if band and cuts is None else segment.stop - segment.start
    kept = np.zeros(len(merging.models), np.int64)
    none = np.empty((0, len(merging.models), 4), np.int64)
    keys, limits = merging.draws_of()
    polling = Polling(ballot, segment) if ballot else None  # and then all are in one part
    done = []
    for start in range(segment.start, segment.stop, step):
        n = min(step, segment.stop - start)
        rows = it.engine.load([it.tensor.base, *merging.models], start, n, job.dtype)
        out = merging.raw_buffer(n)
        bits = np.array(plain.NO_EXTENT, np.uint32)
        found = np.empty(0 if it.engine.steps is None else n)
        unit, mine = n, none
        if band and cuts is None:
            unit, mine = merging.cuts_of(rows, slice(0, FUSED), None)
        elif band and cuts is not None:
            unit, mine = job.chunk, merging.of_segment(segment, cuts)
        results = it.alpha, bits, out, found
        drawn = keys, start, limits
        part = _Part(rows[0], rows[1:], unit, mine, drawn, kind, results, kept, polling)
        squares, inexact = _elect(it, part)
        values = merging.accept(it.alpha**2 * squares, inexact, bits, out, report)
        if values is None:
            return False
        values = values.copy() if n < segment.stop - segment.start else values
        done.append((start, values, found))
    for start, values, found in done:  # not before all are right, since nothing is written twice
        if it.engine.steps is not None:
            it.engine.steps.keep(it.tensor, start, found)
        it.engine.sink.write(segment.index, start, values)
    merging.add_kept(kept, report)
    merging.count_kept(segment, cuts, report)
    if polling:
        polling.close(report)
    return True


def _elect(it: Combining, part: _Part) -> tuple[float, bool | None]:
    """Return the sum of squares of the steps, and, with weights, whether the result is no use."""
    given = part.base, part.models
    if _weighted(it):
        return _elect_weighted(it, part)
    if not len(part.cuts):
        how = part.kind, part.majority, *part.results, part.kept
        return it.merging.kernels.elect_drawn(*given, *part.drawn, *how), None
    out = part.results[2]
    room = part.base.size // ROOM + LEAST if part.polling else 0
    where = it.engine.buffer("where", (room,), np.uint32)
    other = it.engine.buffer("other", (room,), out.dtype)
    how = part.kind, part.majority, *part.results, where, other
    found = it.merging.kernels.elect_band(*given, part.unit, part.cuts, *how)
    squares, votes, number, more = found
    _tell(it, part, votes, number, where, other, more)
    return squares, None


def _elect_weighted(it: Combining, part: _Part) -> tuple[float, bool]:
    weights, signed = it.merging.given, it.values["shares"] == "signed"
    shares = plain.shares(weights, signed) if part.kind == plain.MEAN else np.empty(1)
    alpha, bits, out, found = part.results
    given = part.base, part.models, part.unit, part.cuts, part.drawn, part.kind
    factors = weights, shares, alpha, bits
    kernel = it.merging.kernels.elect_weighted
    squares, votes, inexact = kernel(*given, part.majority, *factors, out, found, part.kept)
    if part.polling and not inexact:
        other = np.empty_like(out)
        turned, _, _ = kernel(*given, -part.majority, *factors, other, np.empty(0), part.kept)
        where = np.flatnonzero(out != other)
        _tell(it, part, votes, where.size, where, other[where], turned - squares)
    return squares, inexact


def _tell(
    it: Combining,
    part: _Part,
    votes: int,
    undecided: int,
    where: np.ndarray,
    other: np.ndarray,
    more: float,
) -> None:
    """Tell the votes, and what the other majority would make, where all of that is known."""
    if part.polling is None:
        return
    known = undecided <= where.size and it.engine.steps is None
    other = other[:undecided]
    if known and math.isfinite(it.merging.kernels.extent(other)[1]):
        values = other.view(DTYPES[it.tensor.dtype])
        part.polling.add(votes, where[:undecided].copy(), values.copy(), it.alpha**2 * more)
    else:
        part.polling.add_unknown(votes, undecided)
