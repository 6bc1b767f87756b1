"""Merging by `wudi` from the sums of `grams`: one decomposition a matrix, however many tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import Output, SegmentReport
from breadcrumbs.engine.routes.general import added
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.methods.published import wudi
from breadcrumbs.plan import TensorPlan
from breadcrumbs.plan.lowering import Lowered
from breadcrumbs.plan.units import Segment
from breadcrumbs.store.grams import Grams
from breadcrumbs.store.summed import Summed
from breadcrumbs.store.sums import State, Sums

#: The solvers that the sums are enough for, in whatever unit.
SOLVERS = ("flow", "ridge")


class Grammed(Summed):
    """A consumer that merges `wudi` from ``grams`` and, where tensors are no matrices, ``sums``.

    What is merged by anything else goes as in `Summed`. scratch: whether all sums are made from the
    task files.
    """

    def __init__(
        self,
        output: Output,
        sums: Sums,
        hashes: Sequence[str],
        grams: Grams,
        scratch: bool = False,
    ):
        super().__init__(output, sums, hashes)
        self.grams, self.scratch = grams, scratch

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        merged = self._solved(terms, segment)
        if merged is not None:
            return self.take(terms.tensor, segment, merged)
        if self.scratch:
            return Writing.merge(self, terms, segment, ballot)
        return super().merge(terms, segment, ballot)

    def _solved(self, terms: Terms, segment: Segment) -> Merged | None:
        """Return a segment from sums; None where they are not those that it takes."""
        if terms.careful or not suits(terms.lowered, terms.tensor, self.grams):
            return None
        it = Vectors(terms)
        tensor, n = it.tensor.base, segment.stop - segment.start
        both = zip(it.all, it.weights.tolist(), strict=True)
        wanted: State = Counter((self.hashes[t], weight) for t, weight in both)
        if not wanted or not self.sums.knows(tensor, wanted):
            return None
        report = SegmentReport([0] * terms.number)
        for t in terms.who:
            report.kept[t] += n
        merged = Merged([], report)
        shape = wudi.WUDI.each(it.tensor.name, tensor.shape, it.values)
        if len(shape) == 2:
            matrix = self.grams.matrix(tensor.name, segment.start, shape)
            if matrix is None:
                return None
            s, a, c, unit = self.grams.at(matrix, wanted, self.scratch)
            if not (np.isfinite(s).all() and np.isfinite(a).all() and np.isfinite(c).all()):
                return None  # which says where
            found = wudi.solution(s, a, c, it.values) * unit
            merged.pieces = [_piece(it, segment.start, found.reshape(-1), merged)]
            return merged
        products = any(_is_product(self.sums, task, tensor.name) for task, _ in wanted)
        if products or segment.start % BLOCK:
            return None
        merged.pieces = [
            _piece(it, first, self._mean(it, first, wanted), merged)
            for first in range(segment.start, segment.stop, BLOCK)
        ]
        return merged

    def _mean(self, it: Vectors, first: int, wanted: State) -> np.ndarray:
        """Return the mean of the task vectors times their weights in the block from ``first`` on.

        The sums leave a weight that all have to the factor.
        """
        weights = {weight for _, weight in wanted}
        common = weights.pop() if len(weights) == 1 else 1.0
        if common != 1:
            wanted = Counter({(task, 1.0): times for (task, _), times in wanted.items()})
        found = self.sums.at(it.tensor.base, first // BLOCK, wanted, self.scratch)
        return found.total * common / len(it.all)


def suits(lowered: Lowered, tensor: TensorPlan, grams: Grams) -> bool:
    """Return whether a tensor is merged by the closed form of `wudi`, of whole task vectors."""
    values = tensor.values
    if lowered.whole is not wudi.WUDI or not lowered.keeps_all or lowered.finish is not None:
        return False
    plain = tensor.onto is None and tensor.base.is_weight
    same = values["normalize"] == grams.how["normalize"]
    return plain and same and values["solver"] in SOLVERS


def _is_product(sums: Sums, task: str, name: str) -> bool:
    tensors = sums.task(task).tensors
    return name in tensors and bool(tensors[name].rank)


def _piece(it: Vectors, start: int, found: np.ndarray, merged: Merged) -> tuple[int, np.ndarray]:
    """Return what a piece from entry ``start`` on is merged to: the base and the step."""
    (raw,) = it.context.space.load([it.tensor.base], start, found.size, it.terms.dtype)
    it.terms.check(raw[None], slice(0, 0), start)
    base = it.terms.kernels.widen(raw).astype(np.float64)
    none = np.empty((0, 0))
    chunk = Chunk(start, base, none, none, np.empty(0, np.int64))
    return start, added(it, chunk, found, merged)
