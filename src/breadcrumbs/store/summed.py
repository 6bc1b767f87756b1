"""Merging from a running sum: what a merge of all tasks gives, bit for bit, at the cost of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import Output, SegmentReport
from breadcrumbs.engine.rounding import rounded
from breadcrumbs.engine.terms import Terms
from breadcrumbs.plan.units import Segment
from breadcrumbs.store.sums import State, Sums


class Summed(Writing):
    """A consumer that takes sums of task vectors from ``sums``, where a merge is made of them.

    hashes: of the models' task files, in the order of the plan. What is no sum of all that
    the files keep, such as an election, is merged as everywhere.
    """

    several = False

    def __init__(self, output: Output, sums: Sums, hashes: Sequence[str]):
        super().__init__(output)
        self.sums, self.hashes = sums, hashes

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        """Write a segment from sums, or as everywhere; return the report."""
        merged = self._summed(terms, segment)
        if merged is None:
            return super().merge(terms, segment, ballot)
        return self.take(terms.tensor, segment, merged)

    def _summed(self, it: Terms, segment: Segment) -> Merged | None:
        """Return a segment from sums; None where it is not one, or they do not tell enough."""
        if not it.tensor.base.is_weight or not it.linear or it.counting or it.careful:
            return None
        if segment.start % BLOCK or it.lowered.band or not it.lowered.masks:
            return None
        both = zip(it.who, it.weights.tolist(), strict=True)
        wanted: State = Counter((self.hashes[t], weight) for t, weight in both)
        report = SegmentReport([0] * it.number)
        if not self.sums.knows(it.tensor.base, wanted):
            return None
        n = segment.stop - segment.start
        (base,) = it.context.space.load([it.tensor.base], segment.start, n, it.dtype)
        pieces = []
        for start in range(0, n, BLOCK):
            part = self._block(it, segment.start + start, base[start : start + BLOCK], wanted)
            if part is None:
                return None
            pieces.append((segment.start + start, part[0]))
            report.squares += part[1]
        it.count_kept(segment, report)
        return Merged(pieces, report)

    def _block(
        self, it: Terms, start: int, base: np.ndarray, wanted: State
    ) -> tuple[np.ndarray, float] | None:
        """Return the merged block that begins with entry ``start``, and the squares of its step."""
        it.check(base[None], slice(0, 0), start)
        found = self.sums.at(it.tensor.base, start // BLOCK, wanted)
        merged = it.kernels.merge(base, found.total, found.rest, it.factor)
        zeros = np.flatnonzero(merged == 0)
        if zeros.size and 0 < found.zeros == wanted.total():
            return None  # a zero that all models hold has a sign that the sum does not know
        if zeros.size:
            none = np.empty((0, base.size), base.dtype)
            it.kernels.sign_zeros(merged, zeros, base, none, found.total)
        squares = it.factor * it.factor * float(np.einsum("i,i->", found.total, found.total))
        return rounded(merged, it.tensor, it.kernels), squares
