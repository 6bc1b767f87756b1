"""Merging from a running sum: what a merge of all tasks gives, bit for bit, at the cost of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.ballot import Ballot
from breadcrumbs.engine import Engine
from breadcrumbs.kernels import plain
from breadcrumbs.sink import SegmentReport
from breadcrumbs.store.sums import State, Sums
from breadcrumbs.tasks.about import BLOCK
from breadcrumbs.tensors import Merging, rounded
from breadcrumbs.transforms import Draw, Everything
from breadcrumbs.work import Segment


@dataclass
class Summed(Engine):
    """An engine that takes sums of task vectors from ``sums``, where a merge is made of them.

    hashes: of the models' task files, in the order of the plan. What is no sum of all that
    the files keep, such as an election, is merged as everywhere.
    """

    sums: Sums | None = None
    hashes: Sequence[str] = ()

    def written(
        self,
        segment: Segment,
        merging_of: Callable[[int], Merging],
        cuts: np.ndarray | None,
        known: Any,
        ballot: Ballot | None,
    ) -> SegmentReport:
        """Write a segment from sums, or as everywhere; return the report."""
        report = self._summed(segment, merging_of)
        if report is None:
            return super().written(segment, merging_of, cuts, known, ballot)
        return report

    def _summed(
        self, segment: Segment, merging_of: Callable[[int], Merging]
    ) -> SegmentReport | None:
        """Write a segment from sums; None where it is not one, or the sums do not tell enough."""
        tensor = self.plan.tensors[segment.index]
        if self.sums is None or tensor.copied or not tensor.base.is_weight:
            return None
        it = merging_of(segment.index)
        if not it.linear or it.counting or it.careful or segment.start % BLOCK:
            return None
        if not isinstance(self.plan.method.transform, Draw | Everything):
            return None
        both = zip(it.who, it.weights.tolist(), strict=True)
        wanted: State = Counter((self.hashes[t], weight) for t, weight in both)
        report = SegmentReport([0] * it.number)
        n = segment.stop - segment.start
        (base,) = self.load([tensor.base], segment.start, n, it.dtype)
        parts = []
        for start in range(0, n, BLOCK):
            part = self._block(it, segment.start + start, base[start : start + BLOCK], wanted)
            if part is None:
                return None
            parts.append(part)
        self.sink.write(segment.index, segment.start, np.concatenate([part for part, _ in parts]))
        report.squares = sum(squares for _, squares in parts)
        it.count_kept(segment, None, report)
        return report

    def _block(
        self, it: Merging, start: int, base: np.ndarray, wanted: State
    ) -> tuple[np.ndarray, float] | None:
        """Return the merged block that begins with entry ``start``, and the squares of its step."""
        assert self.sums is not None
        it.check(base[None], slice(0, 0), start)
        found = self.sums.at(it.tensor.base, start // BLOCK, wanted)
        merged = it.kernels.merge(base, found.total, found.rest, it.factor)
        zeros = np.flatnonzero(merged == 0)
        if zeros.size and 0 < found.zeros == wanted.total():
            return None  # a zero that all models hold has a sign that the sum does not know
        if zeros.size:
            none = np.empty((0, base.size), base.dtype)
            plain.sign_zeros(merged, zeros, base, none, found.total)
        squares = it.factor * it.factor * float(np.einsum("i,i->", found.total, found.total))
        return rounded(merged, it.tensor, it.kernels), squares
