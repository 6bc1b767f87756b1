"""Combinations of the base and the task vectors, with known coefficients, by the fused kernel."""

from __future__ import annotations

import numpy as np

from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.passes.products import factored
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.kernels.bounds import NO_EXTENT
from breadcrumbs.plan.units import Segment


def fused(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment, a weighted sum, or None where that may not be exact."""
    as_is = terms.lowered.keeps_all and terms.tensor.onto is None
    if not terms.lowered.gram or not as_is or terms.careful or not terms.fused:
        return None
    coefficients = terms.context.facts.coefficients[terms.tensor.name]
    if coefficients.ndim == 2:  # of lines
        return None
    rows, report = terms.load(segment), SegmentReport([0] * terms.number)
    own, weights, factor = factored(coefficients)
    if weights.size:
        everyone = Vectors(terms).all
        weights = np.array([weights[everyone.index(t)] for t in terms.who])
    bits = np.array(NO_EXTENT, np.uint32)
    out = terms.raw_buffer(segment.stop - segment.start)
    squares, inexact = terms.kernels.combine(rows[0], rows[1:], own, weights, factor, bits, out)
    values = terms.accept(squares, inexact if weights.size else None, bits, out, report)
    if values is None:
        return None
    terms.count_kept(segment, report)
    return Merged([(segment.start, values)], report)
