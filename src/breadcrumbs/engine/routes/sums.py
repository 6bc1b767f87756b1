"""Sums of task vectors: by the fused kernels where they are exact, else entry by entry exactly.

A sum is accumulated in float64 where `exactness.provably_exact` says that no order of addition can
round; elsewhere, and with weights other than 1, with the rounding errors kept beside the sum; and
where even that may round, by `math.fsum`.
"""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.exactness import provably_exact
from breadcrumbs.engine.merged import Merged, Step
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.rounding import rounded
from breadcrumbs.engine.terms import ALL, NONE, Terms
from breadcrumbs.kernels.bounds import NO_EXTENT
from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.plan.units import Segment

#: Entries of a unit, of which a whole segment is ranked at once: the cuts of smaller ones would
#: take more memory than the weights.
LEAST_UNIT = 64


def fused(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment where the fused kernels do it at once, whose units are ranked here
    unless their cuts are known."""
    cuts, band = terms.cuts, terms.lowered.band
    if not terms.fused or terms.context.replay or terms.careful:
        return None
    if band and cuts is None and terms.job.unit < LEAST_UNIT:
        return None
    rows = terms.load(segment)
    base, models = rows[0], rows[1:]
    out = terms.raw_buffer(segment.stop - segment.start)
    bits, kept = np.array(NO_EXTENT, np.uint32), np.zeros(len(models), np.int64)
    settings = terms.unequal, terms.factor, bits, out
    if not band:
        keys, limits = terms.draws_of()
        drawn = keys, segment.start, limits
        squares, inexact = terms.kernels.merge_drawn(base, models, *drawn, *settings, kept)
    else:
        known = cuts is not None
        by = (
            (terms.job.chunk, terms.of_segment(segment))
            if known
            else terms.cuts_of(rows, ALL, None)
        )
        squares, inexact = terms.kernels.merge_band(base, models, *by, *settings)
    report = SegmentReport([0] * terms.number)
    values = _accepted(terms, squares, inexact, bits, out, report)
    if values is None:
        return None
    terms.add_kept(kept, report)
    terms.count_kept(segment, report)
    return Merged([(segment.start, values)], report)


def begun(terms: Terms, segment: Segment) -> Merged | None:
    """Return the segment that a pass has merged already, now that what was in doubt is known.

    None where there is none, or its sums are not exact.
    """
    context = terms.context
    begun = context.facts.begun.pop((segment.index, segment.start), None)
    if begun is None:
        return None
    context.hold(-begun.nbytes)
    room = context.space.buffer("patch", begun.where.shape, begun.values.dtype)
    by = begun.doubts, terms.of_segment(segment), terms.unequal, terms.factor, begun.extent
    base, models = begun.columns[0], begun.columns[1:]
    squares, inexact = terms.kernels.merge_band(base, models, *by, room)
    if inexact:
        return None
    terms.kernels.fill(begun.values, 0, begun.where, room)
    report = SegmentReport([0] * terms.number)
    values = _accepted(terms, begun.squares + squares, False, begun.extent, begun.values, report)
    if values is None:
        return None
    terms.count_kept(segment, report)
    return Merged([(segment.start, values)], report)


def exact(terms: Terms, segment: Segment) -> Merged:
    """Return the merged segment, chunk by chunk, whatever dtypes, weights and number of models."""
    report, steps = SegmentReport([0] * terms.number), []
    pieces = []
    for start, n, cuts in terms.chunks(segment):
        values = _ranked(terms, segment, start, n, cuts, report)
        if values is None:
            values = _summed(terms, start, n, cuts, report, steps)
        pieces.append((start, values))
    terms.count_kept(segment, report)
    return Merged(pieces, report, steps)


def _accepted(terms: Terms, squares, inexact, bits, raw, report) -> np.ndarray | None:
    """Do as `Terms.accept` for what `merge_band` or `merge_drawn` made, squares of its sums."""
    judged = inexact if terms.unequal.size else None
    return terms.accept(terms.factor * terms.factor * squares, judged, bits, raw, report)


def _ranked(
    terms: Terms,
    segment: Segment,
    start: int,
    n: int,
    cuts: np.ndarray | None,
    report: SegmentReport,
) -> np.ndarray | None:
    """Return a merged chunk whose units are ranked here, or None where no fused kernel applies."""
    if not terms.fused or terms.context.replay or not terms.lowered.band:
        return None
    rows = terms.read(start, n)
    at = start - segment.start  # the pieces of a segment have room beside each other
    raw = terms.raw_buffer(segment.stop - segment.start)[at : at + n]
    bits = np.array(NO_EXTENT, np.uint32)
    unit, mine = terms.cuts_of(rows, ALL, cuts)
    settings = terms.unequal, terms.factor, bits, raw
    squares, inexact = terms.kernels.merge_band(rows[0], rows[1:], unit, mine, *settings)
    return _accepted(terms, squares, inexact, bits, raw, report)


def _summed(
    terms: Terms,
    start: int,
    n: int,
    cuts: np.ndarray | None,
    report: SegmentReport,
    steps: list[Step],
    pair: bool = False,
) -> np.ndarray:
    """Return a merged chunk. pair: whether sums are kept as two numbers, as weighted ones are."""
    pair = pair or terms.unequal.size > 0
    buffer = terms.context.space.buffer
    total = buffer("total", (n,), np.float64)
    rest = buffer("rest", (n if pair else 0,), np.float64)
    inexact = buffer("inexact", (n if pair else 0,), np.uint8)
    for sums in (total, rest, inexact):
        sums[:] = 0
    smallest, largest, untouched = math.inf, 0.0, NONE
    kept, rows = [0] * terms.number, np.empty((0, 0))
    for group in terms.groups():
        rows = terms.read(start, n, group)
        low, high, untouched = terms.check(rows, group, start)
        smallest, largest = min(smallest, low), max(largest, high)
        _add(terms, rows, group, start, cuts, (total, rest, inexact), kept)
    if not pair and not provably_exact(smallest, largest, len(terms.models), terms.precision):
        return _summed(terms, start, n, cuts, report, steps, pair=True)
    report.kept = [a + b for a, b in zip(report.kept, kept, strict=True)]
    if pair:  # make total the correctly rounded sum, whatever the order it was added in
        terms.kernels.settle(total, rest)
    if inexact.any():
        _add_exactly(terms, start, n, cuts, total, rest, np.flatnonzero(inexact))
    report.squares += terms.factor * terms.factor * float(np.einsum("i,i->", total, total))
    if terms.context.replay:
        steps.append(Step(start, total.copy(), rest.copy()))
    return added(terms, start, rows[0], total, rest, untouched)


def added(
    terms: Terms,
    start: int,
    base: np.ndarray,
    total: np.ndarray,
    rest: np.ndarray,
    untouched: np.ndarray,
) -> np.ndarray:
    """Return a chunk of the base plus the factor times the sums, as the output's dtype.

    untouched: entries of the base that stay as they are, since they are not finite.
    """
    n = base.size
    merged = terms.kernels.merge(base, total, rest, terms.factor)
    zeros = np.flatnonzero(merged == 0)
    if zeros.size:
        base_at, total_at = base[zeros], total[zeros]
        models_at = np.concatenate(
            [terms.checked(start, n, group)[1:, zeros] for group in terms.groups()]
        )
        signed = merged[zeros]
        terms.kernels.sign_zeros(signed, np.arange(zeros.size), base_at, models_at, total_at)
        merged[zeros] = signed
    out = rounded(merged, terms.tensor, terms.kernels)
    if untouched.size:
        dtype = DTYPES[terms.tensor.base.dtype]
        original = terms.context.space.buffer("original", (n,), dtype)
        terms.tensor.base.read_into(start, original)
        out[untouched] = original[untouched].astype(out.dtype)
    return out


def rescaled(terms: Terms, step: Step) -> np.ndarray:
    """Return a chunk merged from sums that were kept."""
    base, untouched = terms.base(step.start, step.total.size)
    return added(terms, step.start, base, step.total, step.rest, untouched)


def _add(
    terms: Terms, rows, group, start, cuts, sums: tuple[np.ndarray, np.ndarray, np.ndarray], kept
) -> None:
    """Add what stays of a group of models to the sums."""
    base, models = rows[0], rows[1:]
    if terms.lowered.band:
        unit, mine = terms.cuts_of(rows, group, cuts)
        terms.kernels.add_band(base, models, unit, mine, terms.weights[group], *sums)
        return
    keys, limits = terms.draws_of(group)
    number = np.zeros(len(models), np.int64)
    settings = keys, start, limits, terms.weights[group]
    terms.kernels.add_drawn(base, models, *settings, *sums, number)
    for t, more in zip(terms.who[group], number.tolist(), strict=True):
        kept[t] += more


def _add_exactly(terms: Terms, start, n, cuts, total, rest, where) -> None:
    """Redo the sums at the entries ``where`` with unlimited precision."""
    parts = []
    for t in range(len(terms.models)):
        group = slice(t, t + 1)
        rows = terms.checked(start, n, group)
        base, model = rows
        if terms.lowered.band:
            unit, mine = terms.cuts_of(rows, group, cuts)
            keys = terms.kernels.magnitudes(base, model)
            keep = np.concatenate(
                [
                    terms.kernels.band(keys[u * unit : (u + 1) * unit], cut)
                    for u, cut in enumerate(mine[:, 0])
                ]
            )[where]
        else:
            keys, limits = terms.draws_of(group)
            keep = terms.kernels.drawn(n, keys, start, limits, 0)[where]
        x = terms.kernels.widen(model[where]).astype(np.float64)
        y = terms.kernels.widen(base[where]).astype(np.float64)
        tau = x - y
        lost = two_sum(x, -y, tau)
        weight = terms.weights[t]
        parts += [np.where(keep, weight * tau, 0.0), np.where(keep, weight * lost, 0.0)]
    for i, column in zip(where, np.array(parts).T.tolist(), strict=True):
        total[i] = math.fsum(column)
        rest[i] = math.fsum([*column, -total[i]])
