"""Small tensors that are merged alike, several at a time.

Of a mixture of experts with 100,000 of them, what Python does for one tensor would take longer than
all else. So the sums or elections of a batch are read, merged and written in one go; what comes out
is what each would be by itself, its report included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.files import FileRange
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.exactness import provably_exact
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.routes import elections
from breadcrumbs.engine.routes.sums import LEAST_UNIT
from breadcrumbs.engine.terms import RANGE, Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.engine.workspace import as_is
from breadcrumbs.kernels.bounds import NO_EXTENT, extent_of
from breadcrumbs.kernels.constants import TOTAL
from breadcrumbs.plan import TensorPlan
from breadcrumbs.plan.units import Job, Segment, rescaled

#: Tensors from which a batch is worth it.
LEAST = 4


@dataclass(frozen=True)
class Batch:
    """Jobs of a whole small tensor each, of which ``terms`` are those of the first.

    kind: of an election, or `TOTAL`. alpha: what the result is multiplied by. reach: as in `Terms`.
    """

    jobs: list[Job]
    terms: Terms
    kind: int
    alpha: float
    reach: float

    @property
    def segments(self) -> list[Segment]:
        """The segments, one for each job."""
        return [Segment(p.index, p.start, p.stop, 0) for (p,) in (job.pieces for job in self.jobs)]


def of(context: Context, jobs: Sequence[Job]) -> Iterator[Batch | list[Job]]:
    """Yield all of the jobs, in their order: batches, and lists of others."""
    run: list[Job] = []
    last: tuple | None = None
    for job in (*jobs, None):
        key = None if job is None else _key(context, job)
        if run and (key is None or not _same(key, last)):
            yield from _found(context, run, last is not None)
            run = []
        if job is not None:
            run.append(job)
        last = key
    if run:
        yield run


def _found(context: Context, jobs: list[Job], alike: bool) -> Iterator[Batch | list[Job]]:
    if alike and len(jobs) >= LEAST:
        terms = Terms(context, jobs[0], context.plan.tensors[jobs[0].pieces[0].index])
        if terms.linear and terms.fused and terms.who:
            yield Batch(jobs, terms, TOTAL, terms.factor, terms.reach)
            return
        kind = elections.kind_of(terms)
        if kind is not None and terms.who and not elections.is_weighted(terms):
            alpha = Vectors(terms).alpha
            yield Batch(jobs, terms, kind, alpha, 1 + 2 * abs(alpha) * len(terms.who))
            return
    yield jobs


def _same(key: tuple, last: tuple | None) -> bool:
    return last is not None and key[:2] == last[:2] and key[2] is last[2] and key[3] is last[3]


def _key(context: Context, job: Job) -> tuple | None:
    """Return what the jobs of a batch have in common; None for one that is done by itself."""
    if job.survey or job.together or len(job.pieces) != 1:
        return None
    (piece,) = job.pieces
    tensor = context.plan.tensors[piece.index]
    n, ranks = piece.stop, job.ranks
    whole = piece.start == 0 and n == tensor.base.size and n <= job.chunk
    if not whole or tensor.copied or tensor.careful or tensor.onto is not None or rescaled(tensor):
        return None
    if ranks and (ranks.count(ranks[0]) < len(ranks) or job.unit < min(n, LEAST_UNIT)):
        return None
    for one in (tensor.base, *tensor.models):
        if one is None or not isinstance(one.source, FileRange) or not as_is(one, job.dtype):
            return None
    return job.dtype, tensor.dtype, tensor.values, tensor.own


def merge(batch: Batch) -> tuple[np.ndarray, list[SegmentReport | None]]:
    """Return merged values, of all tensors one after the other, and reports.

    No report where the sums of a tensor may not be exact, or something is not finite: it is to be
    merged by itself. The values lie in room of this thread that is used again.
    """
    terms, jobs = batch.terms, batch.jobs
    tensors = [terms.context.plan.tensors[job.pieces[0].index] for job in jobs]
    rows = _load(terms, tensors)
    count, models = len(jobs), len(terms.who)
    sizes = np.array([job.pieces[0].stop for job in jobs], np.int64)
    ranks = np.empty((0, 3), np.int64)
    if terms.lowered.band:
        ranks = np.array([(job.unit, *(job.ranks[0])) for job in jobs], np.int64)
    keys, limits = _draws(batch, tensors)
    extents = np.tile(np.array(NO_EXTENT, np.uint32), (count, 1))
    kept, squares = np.zeros((count, models), np.int64), np.empty(count)
    out = terms.raw_buffer(rows.shape[1])
    settings = batch.kind, terms.unequal, batch.alpha, extents, out, kept, squares
    drawn = keys, limits
    inexact = terms.kernels.merge_several(rows[0], rows[1:], sizes, ranks, *drawn, *settings)
    fine = _accepted(batch, extents, inexact)
    squares *= batch.alpha * batch.alpha
    reports: list[SegmentReport | None] = []
    stays = _kept(terms, jobs, sizes, kept).tolist()
    for mine, square, holds in zip(stays, squares.tolist(), fine, strict=True):
        reports.append(SegmentReport(mine, square) if holds else None)
    return out.view(DTYPES[tensors[0].dtype]), reports


def _load(terms: Terms, tensors: Sequence[TensorPlan]) -> np.ndarray:
    def ranges(found: list[Tensor | None]) -> list[FileRange]:
        return [one.source for one in found if one and isinstance(one.source, FileRange)]

    every = [ranges([tensor.base for tensor in tensors])]
    every += [ranges([tensor.models[t] for tensor in tensors]) for t in terms.who]
    return terms.context.space.load_ranges(every, terms.dtype)


def _draws(batch: Batch, tensors: Sequence[TensorPlan]) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of the draws of all tensors (k, models), and the limits; none if all stay."""
    terms = batch.terms
    keys, limits = terms.draws_of()
    if not limits.size:
        return keys, limits
    return np.array([[terms.stream(t, of.inner) for t in terms.who] for of in tensors]), limits


def _accepted(batch: Batch, extents: np.ndarray, inexact: np.ndarray) -> list[bool]:
    """Return of which tensors the result is right, as `Terms.accept` says of one."""
    every = np.array([extents[:, 0].min(), extents[:, 1].max()], np.uint32)
    if not inexact.any() and _holds(batch, every, False):
        return [True] * len(inexact)
    both = zip(extents, inexact.tolist(), strict=True)
    return [_holds(batch, extent, wrong) for extent, wrong in both]


def _holds(batch: Batch, extent: np.ndarray, inexact: bool) -> bool:
    terms = batch.terms
    smallest, largest = extent_of(extent, terms.dtype)
    if not terms.unequal.size:
        inexact = not provably_exact(smallest, largest, len(terms.models), terms.precision)
    return math.isfinite(largest) and not inexact and largest * batch.reach < RANGE


def _kept(terms: Terms, jobs: Sequence[Job], sizes: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return how many entries of each tensor each model of the plan keeps."""
    result = np.zeros((len(jobs), terms.number), np.int64)
    if terms.counting:
        result[:, terms.who] = kept
    elif terms.lowered.band:
        each = [max(0, last - first) for first, last in (job.ranks[0] for job in jobs)]
        units = np.array([job.unit for job in jobs], np.int64)
        result[:, terms.who] = (np.array(each, np.int64) * (sizes // units))[:, None]
    else:
        result[:, terms.who] = sizes[:, None]
    return result
