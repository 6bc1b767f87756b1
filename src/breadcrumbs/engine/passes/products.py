"""Inner products of the base and the task vectors of a tensor, and the coefficients from them."""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.engine.context import Context
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.passes import lines
from breadcrumbs.engine.passes.protocol import Looked, Looks
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Vectors
from breadcrumbs.kernels.constants import PART
from breadcrumbs.methods.aggregates import Gram, ordering
from breadcrumbs.plan import TensorPlan
from breadcrumbs.plan.units import Job, Segment

#: Float64 has squares of magnitudes between these, and sums of them, that are normal numbers.
SQUARED = 2.0**-480, 2.0**480


class Products(Looks):
    """The pass over tensors whose coefficients follow from inner products."""

    def __init__(self, context: Context, job: Job):
        self.context, self.job = context, job
        self._parts: dict[int, dict[int, np.ndarray]] = {}
        self._found = Facts()

    def items(self) -> list[list[Segment]]:
        """Runs of segments: each alone where products of parts can be added up, else a tensor's."""
        result: list[list[Segment]] = []
        for piece in self.job.pieces:
            run = [segment for segment in self.job.segments() if segment.index == piece.index]
            apart = self.job.dtype != np.float64 and not any(s.start % PART for s in run)
            result += [[segment] for segment in run] if apart and self._whole(run) else [run]
        return result

    def _vectors(self, index: int) -> Vectors:
        return Vectors(Terms(self.context, self.job, self.context.plan.tensors[index]))

    def _whole(self, run: list[Segment]) -> bool:
        """Return whether a tensor has one set of coefficients, not one for each line."""
        return _gram(self.context).lines(self._tensor(run).values) == "tensor"

    def _tensor(self, run: list[Segment]) -> TensorPlan:
        return self.context.plan.tensors[run[0].index]

    def scan(self, item: list[Segment]) -> np.ndarray:
        it = self._vectors(item[0].index)
        return products(it, item) if self._whole(item) else line_coefficients(it, item)

    def join(self, item: list[Segment], part: np.ndarray) -> None:
        if self._whole(item):
            self._parts.setdefault(item[0].index, {})[item[0].start] = part
        else:
            self._found.coefficients[self._tensor(item).name] = part

    def looked(self, item: list[Segment]) -> Looked:
        return item[0].index, sum(s.stop - s.start for s in item) / self._tensor(item).base.size

    def end(self) -> Facts:
        for index, mine in self._parts.items():
            parts = np.concatenate([mine[start] for start in sorted(mine)])
            it = self._vectors(index)
            self._found.coefficients[it.tensor.name] = coefficients(it, parts)
        return self._found


def _gram(context: Context) -> Gram:
    """Return the aggregate, which asks for inner products."""
    gram = context.plan.lowered.gram
    assert gram is not None
    return gram


def scale(it: Vectors, segments: list[Segment]) -> float:
    """Return the power of 2 that magnitudes of float64 must be times to have squares, 1 if none.

    Angles do not depend on it. segments: the whole of a tensor.
    """
    if it.job.dtype != np.float64:
        return 1.0
    largest = 0.0
    for segment in segments:
        for chunk in it.chunks(segment):
            both = np.abs(chunk.base).max(initial=0), np.abs(chunk.taus).max(initial=0)
            largest = max(largest, *both)
    if largest == 0 or SQUARED[0] <= largest <= SQUARED[1]:
        return 1.0
    return math.ldexp(1.0, max(-1000, min(1000, -math.frexp(largest)[1])))


def products(it: Vectors, segments: list[Segment]) -> np.ndarray:
    """Return the inner products (parts, 1 + T, 1 + T) of the base and the task vectors.

    They are added up in parts of `PART` entries of the tensor, whatever the chunks, so
    segments must begin at such a part. Of float64 they must be all of the tensor, and may be those
    of the base and the task vectors times a factor.
    """
    times = scale(it, segments)
    parts = [_products_fast(it, segment) for segment in segments] if times == 1 else [None]
    if not any(part is None for part in parts):
        return np.concatenate([part for part in parts if part is not None])
    parts, rows = [], np.empty((1 + len(it.all), 0))
    for segment in segments:
        for chunk in it.chunks(segment):
            more = np.concatenate([chunk.base[None], it.everyone(chunk.taus)])
            more *= times
            rows = np.concatenate([rows, more], 1)
            whole = rows.shape[1] // PART * PART
            parts.append(_products_of(it, rows[:, :whole]))
            rows = rows[:, whole:]
    parts.append(_products_of(it, rows))
    return np.concatenate(parts)


def _products_fast(it: Vectors, segment: Segment) -> np.ndarray | None:
    """Return the inner products of a segment of task vectors as they are, or None."""
    terms = it.terms
    plain_sums = it.lowered.keeps_all and not terms.careful
    if not plain_sums or not terms.fused or segment.start % PART:
        return None
    rows, n = terms.load(segment), segment.stop - segment.start
    out = np.empty((-(-n // PART), len(rows), len(rows)))
    terms.kernels.products(rows[0], rows[1:], out)
    if not np.isfinite(out).all():
        terms.check(rows.copy(), slice(0, None), segment.start)  # which says where
    return _with_absent(it, out)


def _products_of(it: Vectors, rows: np.ndarray) -> np.ndarray:
    """Return the inner products of rows of float64, the first of which is the base's."""
    out = np.empty((-(-rows.shape[1] // PART), len(rows), len(rows)))
    it.terms.kernels.row_products(rows, out)
    return out


def _with_absent(it: Vectors, products: np.ndarray) -> np.ndarray:
    """Return the products with zeros for the models that lack the tensor."""
    if len(it.all) == len(it.terms.who):
        return products
    mine = [0, *(1 + it.all.index(t) for t in it.terms.who)]
    result = np.zeros((len(products), 1 + len(it.all), 1 + len(it.all)))
    result[:, np.array(mine)[:, None], mine] = products
    return result


def coefficients(it: Vectors, products: np.ndarray) -> np.ndarray:
    """Return the coefficients (1 + T,) of the base and the task vectors of a tensor."""
    size = products.shape[1]
    gram = np.array([math.fsum(cell) for cell in products.reshape(len(products), -1).T])
    return ordering.apart(_gram(it.context).coefficients)(
        gram.reshape(size, size), it.weights.tolist(), it.values
    )


def line_coefficients(it: Vectors, segments: list[Segment]) -> np.ndarray:
    """Return the coefficients (lines, 1 + T) of the lines of a tensor."""
    find, weights = ordering.apart(_gram(it.context).coefficients), it.weights.tolist()
    times = scale(it, segments)
    pieces = (
        np.concatenate([chunk.base[None], it.everyone(chunk.taus)]) * times
        for segment in segments
        for chunk in it.chunks(segment)
    )
    kind = _gram(it.context).lines(it.values)
    return lines.coefficients(
        pieces,
        it.tensor.base.shape,
        kind,
        lambda gram: find(gram, weights, it.values),
        it.job.sizes.block,
    )


def factored(coefficients: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return (the base's coefficient, those of the task vectors, a factor of both).

    A coefficient that all task vectors share is taken out, so that what is summed is exact.
    """
    own, weights = float(coefficients[0]), coefficients[1:]
    if own == 0 and (weights == weights[0]).all():
        return 0.0, np.empty(0), float(weights[0])
    return own, weights, 1.0


def step(
    it: Vectors, coefficients: np.ndarray, start: int, base: np.ndarray, taus: np.ndarray
) -> np.ndarray:
    """Return the step of some entries, by the coefficients of the tensor or of its lines."""
    if coefficients.ndim == 2:
        kind = _gram(it.context).lines(it.values)
        mine = lines.line_of(it.tensor.base.shape, kind, start, base.size)
        terms = coefficients[mine].T * np.concatenate([base[None], taus])
        return it.context.kernels.exact_sum(terms)
    own, weights, factor = factored(coefficients)
    if weights.size:
        taus = np.concatenate([own * base[None], weights[:, None] * taus])
    return factor * it.context.kernels.exact_sum(taus)
