"""Aggregates by inner products: these, the coefficients, and the combination by fused kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import angles
from breadcrumbs.aggregates import Gram, ordering
from breadcrumbs.kernels import plain
from breadcrumbs.sink import SegmentReport
from breadcrumbs.transforms import Everything
from breadcrumbs.work import Segment

if TYPE_CHECKING:
    from breadcrumbs.combining import Combining


#: Float64 has squares of magnitudes between these, and sums of them, that are normal numbers.
SQUARED = 2.0**-480, 2.0**480


def scale(it: Combining, segments: list[Segment], cuts: np.ndarray | None) -> float:
    """Return the power of 2 that magnitudes of float64 must be times to have squares, 1 if none.

    Angles do not depend on it. segments: the whole of a tensor.
    """
    if it.job.dtype != np.float64:
        return 1.0
    largest = 0.0
    for segment in segments:
        for _, _, base, taus, _, _ in it.chunks(segment, cuts):
            largest = max(largest, np.abs(base).max(initial=0), np.abs(taus).max(initial=0))
    if largest == 0 or SQUARED[0] <= largest <= SQUARED[1]:
        return 1.0
    return math.ldexp(1.0, max(-1000, min(1000, -math.frexp(largest)[1])))


def products(it: Combining, segments: list[Segment], cuts: np.ndarray | None) -> np.ndarray:
    """Return the inner products (parts, 1 + T, 1 + T) of the base and the task vectors.

    They are added up in parts of `plain.PART` entries of the tensor, whatever the chunks, so
    segments must begin at such a part. Of float64 they must be all of the tensor, and may be those
    of the base and the task vectors times a factor.
    """
    times = scale(it, segments, cuts)
    parts = [_products_fast(it, segment) for segment in segments] if times == 1 else [None]
    if not any(part is None for part in parts):
        return np.concatenate([part for part in parts if part is not None])
    parts, rows = [], np.empty((1 + len(it.all), 0))
    for segment in segments:
        for _, _, base, taus, _, _ in it.chunks(segment, cuts):
            more = np.concatenate([base[None], it.everyone(taus)])
            more *= times
            rows = np.concatenate([rows, more], 1)
            whole = rows.shape[1] // plain.PART * plain.PART
            parts.append(_products_of(it, rows[:, :whole]))
            rows = rows[:, whole:]
    parts.append(_products_of(it, rows))
    return np.concatenate(parts)


def _products_fast(it: Combining, segment: Segment) -> np.ndarray | None:
    """Return the inner products of a segment of task vectors as they are, or None."""
    merging = it.merging
    n = segment.stop - segment.start
    plain_sums = isinstance(it.transform, Everything) and not merging.careful
    if not plain_sums or not merging.fused or segment.start % plain.PART:
        return None
    rows = it.engine.load([it.tensor.base, *merging.models], segment.start, n, it.job.dtype)
    out = np.empty((-(-n // plain.PART), len(rows), len(rows)))
    merging.kernels.products(rows[0], rows[1:], out)
    if not np.isfinite(out).all():
        merging.check(rows.copy(), slice(0, None), segment.start)  # which says where
    return _with_absent(it, out)


def _products_of(it: Combining, rows: np.ndarray) -> np.ndarray:
    """Return the inner products of rows of float64, the first of which is the base's."""
    out = np.empty((-(-rows.shape[1] // plain.PART), len(rows), len(rows)))
    it.merging.kernels.row_products(rows, out)
    return out


def _with_absent(it: Combining, products: np.ndarray) -> np.ndarray:
    """Return the products with zeros for the models that lack the tensor."""
    if len(it.all) == len(it.merging.who):
        return products
    mine = [0, *(1 + it.all.index(t) for t in it.merging.who)]
    result = np.zeros((len(products), 1 + len(it.all), 1 + len(it.all)))
    result[:, np.array(mine)[:, None], mine] = products
    return result


def coefficients(it: Combining, products: np.ndarray) -> np.ndarray:
    """Return the coefficients (1 + T,) of the base and the task vectors of a tensor."""
    assert isinstance(it.aggregate, Gram)
    size = products.shape[1]
    gram = np.array([math.fsum(cell) for cell in products.reshape(len(products), -1).T])
    return ordering.apart(it.aggregate.coefficients)(
        gram.reshape(size, size), it.weights.tolist(), it.values
    )


def line_coefficients(
    it: Combining, segments: list[Segment], cuts: np.ndarray | None
) -> np.ndarray:
    """Return the coefficients (lines, 1 + T) of the lines of a tensor."""
    assert isinstance(it.aggregate, Gram)
    find, weights = ordering.apart(it.aggregate.coefficients), it.weights.tolist()
    times = scale(it, segments, cuts)
    pieces = (
        np.concatenate([base[None], it.everyone(taus)]) * times
        for segment in segments
        for _, _, base, taus, _, _ in it.chunks(segment, cuts)
    )
    lines = it.aggregate.lines(it.values)
    return angles.coefficients(
        pieces, it.tensor.base.shape, lines, lambda gram: find(gram, weights, it.values)
    )


def combine(
    it: Combining, segment: Segment, coefficients: np.ndarray, report: SegmentReport
) -> bool:
    """Merge a segment as a weighted sum by the fused kernel; return whether that is exact."""
    merging, n = it.merging, segment.stop - segment.start
    as_is = isinstance(it.transform, Everything) and it.tensor.onto is None
    if not as_is or merging.careful or not merging.fused:
        return False
    if coefficients.ndim == 2:  # of lines
        return False
    rows = it.engine.load([it.tensor.base, *merging.models], segment.start, n, it.job.dtype)
    own, weights, factor = _factored(coefficients)
    if weights.size:
        weights = np.array([weights[it.all.index(t)] for t in merging.who])
    bits, out = np.array(plain.NO_EXTENT, np.uint32), merging.raw_buffer(n)
    squares, inexact = merging.kernels.combine(rows[0], rows[1:], own, weights, factor, bits, out)
    values = merging.accept(squares, inexact if weights.size else None, bits, out, report)
    if values is None:
        return False
    it.engine.sink.write(segment.index, segment.start, values)
    merging.count_kept(segment, None, report)
    return True


def _factored(coefficients: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return (the base's coefficient, those of the task vectors, a factor of both).

    A coefficient that all task vectors share is taken out, so that what is summed is exact.
    """
    own, weights = float(coefficients[0]), coefficients[1:]
    if own == 0 and (weights == weights[0]).all():
        return 0.0, np.empty(0), float(weights[0])
    return own, weights, 1.0


def step(
    it: Combining, coefficients: np.ndarray, start: int, base: np.ndarray, taus: np.ndarray
) -> np.ndarray:
    """Return the step of some entries, by the coefficients of the tensor or of its lines."""
    if coefficients.ndim == 2:
        assert isinstance(it.aggregate, Gram)
        lines = it.aggregate.lines(it.values)
        mine = angles.line_of(it.tensor.base.shape, lines, start, base.size)
        terms = coefficients[mine].T * np.concatenate([base[None], taus])
        return it.engine.kernels.exact_sum(terms)
    own, weights, factor = _factored(coefficients)
    if weights.size:
        taus = np.concatenate([own * base[None], weights[:, None] * taus])
    return factor * it.engine.kernels.exact_sum(taus)
