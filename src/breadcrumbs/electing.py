"""Elections by the fused kernels, where they apply."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import work
from breadcrumbs.aggregates import Elementwise
from breadcrumbs.kernels import plain
from breadcrumbs.sink import SegmentReport
from breadcrumbs.transforms import Band, Chances, Fitted
from breadcrumbs.work import FUSED, Segment

if TYPE_CHECKING:
    from breadcrumbs.combining import Combining


def vote(it: Combining, segment: Segment, cuts: np.ndarray | None) -> int | None:
    """Return the votes by the fused kernel, or None where it may not be exact."""
    merging = it.merging
    known = _is_election(it) and not _weighted(it)
    if not known or cuts is None or not isinstance(it.transform, Band):
        return None
    n = segment.stop - segment.start
    tensors = [it.tensor.base, *merging.models]
    rows = it.engine.load(tensors, segment.start, n, it.job.dtype)
    smallest, largest = merging.kernels.extent(rows)
    exact = work.provably_exact(smallest, largest, len(merging.models), merging.precision)
    if not exact or not math.isfinite(largest):
        return None
    mine = merging.of_segment(segment, cuts)
    return merging.kernels.vote_band(rows[0], rows[1:], it.job.chunk, mine)


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


def elect(
    it: Combining, segment: Segment, cuts: np.ndarray | None, majority: int, report: SegmentReport
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
    weights = merging.given if _weighted(it) else np.empty(0)
    signed = it.values["shares"] == "signed"
    shares = plain.shares(weights, signed) if kind == plain.MEAN else np.empty(1)
    done = []
    for start in range(segment.start, segment.stop, step):
        n = min(step, segment.stop - start)
        rows = it.engine.load([it.tensor.base, *merging.models], start, n, job.dtype)
        base, models = rows[0], rows[1:]
        out = merging.raw_buffer(n)
        bits = np.array(plain.NO_EXTENT, np.uint32)
        found = np.empty(0 if it.engine.steps is None else n)
        settings, results = (kind, majority), (it.alpha, bits, out, found)
        unit, mine, drawn = n, none, (keys, start, limits)
        if band and cuts is None:
            unit, mine = merging.cuts_of(rows, slice(0, FUSED), None)
        elif band and cuts is not None:
            unit, mine = job.chunk, merging.of_segment(segment, cuts)
        kernels, inexact = merging.kernels, None
        if weights.size:
            settings = unit, mine, drawn, *settings, weights, shares
            squares, inexact = kernels.elect_weighted(base, models, *settings, *results, kept)
        elif band:
            squares = kernels.elect_band(base, models, unit, mine, *settings, *results)
        else:
            squares = kernels.elect_drawn(base, models, *drawn, *settings, *results, kept)
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
    return True
