"""Sums and elections of what stays by chances that rise with the rank, by the fused kernel."""

from __future__ import annotations

import numpy as np

from breadcrumbs.engine.merged import Merged, Step
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.kernels.bounds import NO_EXTENT
from breadcrumbs.kernels.constants import TOTAL
from breadcrumbs.plan.units import Segment


def fused(terms: Terms, segment: Segment, majority: int | None) -> Merged | None:
    """Return the merged segment, or None where the fused kernel may not do it."""
    if not terms.lowered.chances or majority is not None:
        return None
    it = Vectors(terms)
    how = _how(it)
    if how is None:
        return None
    n, replay = segment.stop - segment.start, terms.context.replay
    rows, out = terms.load(segment), terms.raw_buffer(n)
    bits, kept = np.array(NO_EXTENT, np.uint32), np.zeros(len(terms.models), np.int64)
    found = np.empty(n if replay else 0)
    known = [it.chances(t) for t in terms.who]
    keys = np.array([terms.stream(t) for t in terms.who], np.uint64)
    drawn = keys, segment.start, np.array([chances for chances, _ in known])
    divide = np.array([divides for _, divides in known], np.uint8)
    squares = terms.kernels.merge_by_rank(
        rows[0], rows[1:], terms.job.unit, drawn, divide, *how, bits, out, found, kept
    )
    merged = Merged([], SegmentReport([0] * terms.number))
    values = terms.accept(squares, False, bits, out, merged.report)
    if values is None:
        return None
    terms.add_kept(kept, merged.report)
    merged.pieces = [(segment.start, values)]
    if replay:
        merged.steps.append(Step(segment.start, found))
    return merged


def _how(it: Vectors) -> tuple[np.ndarray, int, int, bool, float] | None:
    """Return weights, kind, majority, whether shares are signed, and factor, for the kernel.

    None where that is not what it does.
    """
    terms, lowered = it.terms, it.lowered
    plain = terms.fused and not terms.careful and it.tensor.onto is None and terms.models
    if not plain or it.scales is not None or it.scale != 1:
        return None
    if lowered.linear:
        return None if terms.more else (terms.weights, TOTAL, 1, False, terms.factor)
    aggregate = lowered.elementwise
    if aggregate is None or aggregate.kind is None:
        return None
    signed = it.values.get("shares") == "signed"
    return terms.given, aggregate.kind(it.values), 1, signed, it.alpha
