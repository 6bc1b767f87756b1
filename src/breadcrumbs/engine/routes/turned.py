"""Large matrices and tables whose task vectors come one after the other, so that one is held.

For aggregates of whole tensors that go through them in turn (`methods.aggregates.turns`). What each
gives is what it would of all at once; the inputs are read once more for every time that it goes
through them, which is little beside a decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from blake3 import blake3

from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.routes.general import added, checked, unscaled
from breadcrumbs.engine.terms import NONE, Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.methods import algebra
from breadcrumbs.methods.aggregates.turns import Turns
from breadcrumbs.plan.units import Segment, in_turns

NO_ROWS = np.empty((0, 0))


def merge(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment, whose pieces are made as they are asked for."""
    n = segment.stop - segment.start
    shape = in_turns(terms.context.plan, terms.tensor, n)
    if shape is None or terms.context.replay:
        return None
    it, report = Vectors(terms), SegmentReport([0] * terms.number)
    order = _order(it, segment, report)
    merged = Merged([], report)
    if len(shape) != 2:
        merged.pieces = _means(it, segment, order, merged)
        return merged

    def make(number: int) -> np.ndarray:
        tau = np.zeros(n)
        for start, mine, _ in it.one(segment, it.all[order[number]]):
            tau[start - segment.start :][: mine.size] = mine
        if it.weights[order[number]] != 1:
            tau *= it.weights[order[number]]
        return tau.reshape(shape)

    aggregate = it.lowered.whole
    assert aggregate is not None
    none, ones = np.broadcast_to(np.zeros(()), shape), [1.0] * len(order)
    with algebra.on(terms.context.plan.recipe.device):
        made = aggregate.combine(none, Turns((len(order), *shape), make), ones, unscaled(it))
    merged.pieces = _pieces(it, segment, checked(it, made, shape), merged)
    return merged


def _order(it: Vectors, segment: Segment, report: SegmentReport) -> list[int]:
    """Return the numbers of the task vectors in the order of `ordering.by_content`.

    And note what of each is kept.
    """
    keys = []
    for t, weight in zip(it.all, it.weights.tolist(), strict=True):
        content = blake3()
        for _, tau, kept in it.one(segment, t):
            content.update(tau.data.cast("B"))
            report.kept[t] += int(np.count_nonzero(kept))
        keys.append((weight, content.digest()))
    return sorted(range(len(keys)), key=keys.__getitem__)


def _pieces(
    it: Vectors, segment: Segment, found: np.ndarray, merged: Merged
) -> Iterator[tuple[int, np.ndarray]]:
    for start, n, _ in it.terms.chunks(segment):
        base = it.terms.kernels.widen(it.terms.base(start, n)[0]).astype(np.float64)
        mine = found[start - segment.start :][:n]
        yield start, added(it, Chunk(start, base, NO_ROWS, NO_ROWS, NONE), mine, merged)


def _means(
    it: Vectors, segment: Segment, order: list[int], merged: Merged
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the pieces of what is no matrix: combined entry by entry, in one order for all."""
    aggregate, ones = it.lowered.whole, [1.0] * len(order)
    assert aggregate is not None
    for chunk in it.chunks(segment, again=True):
        n = chunk.base.size
        taus = np.zeros((len(order), max(2, n)))  # of one entry alone sums are made in other ways
        taus[:, :n] = (it.weights[:, None] * it.everyone(chunk.taus))[order]
        found = aggregate.combine(np.zeros(taus.shape[1]), taus, ones, unscaled(it))
        mine = checked(it, found, taus.shape[1:])[:n]
        yield chunk.start, added(it, chunk, mine, merged)
