"""Norms that `rescale: l1` needs: of a task vector over that of what stays of it."""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.engine.context import Context
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.passes.protocol import Looked, Looks
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.kernels.constants import PART
from breadcrumbs.plan.units import Job, Segment, rescaled

#: The L1 norm that a task vector must have to be rescaled by it.
LEAST_NORM = 1e-7


class Norms(Looks):
    """The pass over the tensors of a job that are rescaled, each by itself."""

    def __init__(self, context: Context, job: Job):
        self.context, self.job, self._found = context, job, Facts()

    def items(self) -> list[int]:
        tensors = self.context.plan.tensors
        return [piece.index for piece in self.job.pieces if rescaled(tensors[piece.index])]

    def scan(self, item: int) -> np.ndarray:
        terms = Terms(self.context, self.job, self.context.plan.tensors[item])
        return ratios(Vectors(terms), [s for s in self.job.segments() if s.index == item])

    def join(self, item: int, part: np.ndarray) -> None:
        self._found.norms[self.context.plan.tensors[item].name] = part

    def looked(self, item: int) -> Looked:
        return item, 1.0

    def end(self) -> Facts:
        return self._found


def ratios(it: Vectors, segments: list[Segment]) -> np.ndarray:
    """Return, of each model that counts, the L1 norm of its task vector over what stays of it.

    1 for one that is not rescaled, or hardly has a norm.
    """
    who = it.terms.who
    asks = [it.tensor.own[t].values.get("rescale") == "l1" for t in who]
    size = len(who)
    parts, rows = [], np.empty((2 * size, 0))
    for segment in segments:
        for start, n, cuts in it.terms.chunks(segment):
            rows = np.concatenate([rows, _magnitudes(it, start, n, cuts)], 1)
            while rows.shape[1] >= PART:  # as in `products`
                parts.append(rows[:, :PART].sum(axis=1))
                rows = rows[:, PART:]
    parts.append(rows.sum(axis=1))
    norms = [math.fsum(column) for column in np.array(parts).T]
    return np.array(
        [
            before / after if ask and min(before, after) >= LEAST_NORM else 1.0
            for ask, before, after in zip(asks, norms[:size], norms[size:], strict=True)
        ]
    )


def _magnitudes(it: Vectors, start: int, n: int, cuts: np.ndarray | None) -> np.ndarray:
    """Return the magnitudes (2 T, n) of the task vectors, and of what stays of them."""
    terms = it.terms
    result = np.zeros((2, len(terms.who), n))
    for group in terms.groups():
        rows = terms.read(start, n, group)
        terms.check(rows, group, start)
        before, after = result[:, group]
        widen = terms.kernels.widen
        np.subtract(widen(rows[1:]), widen(rows[0]).astype(np.float64), out=before)
        after[:] = before
        kept = np.ones(after.shape, np.bool_)
        it.transformed(rows, group, start, cuts, after, kept)
    return np.abs(result.reshape(-1, n))
