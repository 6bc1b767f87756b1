"""What is not merged: copied from the base, or, of a statistic, the mean of the models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.tensors import DTYPES, items
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.rounding import rounded, widened
from breadcrumbs.errors import MismatchError
from breadcrumbs.plan import TensorPlan
from breadcrumbs.plan.units import Segment


def merge(context: Context, tensor: TensorPlan, segment: Segment) -> Merged:
    """Return a segment of the base, byte for byte unless the output dtype differs.

    Of a statistic the mean of the models' instead.
    """
    if any(tensor.mean):
        return _average(context, tensor, segment)
    report = SegmentReport([0] * len(context.plan.models))
    return Merged(_copied(context, tensor, segment), report)


def _copied(
    context: Context, tensor: TensorPlan, segment: Segment
) -> Iterator[tuple[int, np.ndarray]]:
    dtype, chunk = DTYPES[tensor.target.dtype], context.plan.sizes.chunk
    for start in range(segment.start, segment.stop, chunk):
        number = items(tensor.target.dtype, min(chunk, segment.stop - start))
        out = context.space.buffer("out", (number,), dtype)
        tensor.target.read_into(start, out)
        if tensor.dtype != tensor.target.dtype:
            kernels = context.kernels
            out = rounded(kernels.widen(widened(out)).astype(np.float64), tensor, kernels)
        yield start, out


def _average(context: Context, tensor: TensorPlan, segment: Segment) -> Merged:
    """Return the weighted mean of the models, exact but for one rounding, whatever their order.

    What a step is added to instead of the base counts as one more model.
    """
    both = zip(tensor.models, tensor.mean, strict=True)
    given = [(model, weight) for model, weight in both if model is not None and weight]
    given += [(tensor.onto, 1.0)] if tensor.onto is not None else []
    report = SegmentReport([0] * len(context.plan.models))
    pieces, chunk = [], context.plan.sizes.chunk
    for start in range(segment.start, segment.stop, chunk):
        n = min(chunk, segment.stop - start)
        rows = np.empty((len(given), n))
        for row, (model, _) in zip(rows, given, strict=True):
            own = np.empty(n, DTYPES[model.dtype])
            model.read_into(start, own)
            row[:] = own
        base = np.empty(n, DTYPES[tensor.base.dtype])
        tensor.base.read_into(start, base)
        merged = _mean(rows, [weight for _, weight in given], DTYPES[tensor.dtype])
        if not np.isfinite(merged).all() or not np.isfinite(rows).all():
            raise MismatchError(
                f"tensor {tensor.name!r}: a statistic of a model is not finite. Leave the model"
                " out, or `exclude` the tensor to keep the base's."
            )
        if (merged < 0).any() and kinds.is_variance(tensor.name):
            raise MismatchError(
                f"tensor {tensor.name!r}: a variance of a model is negative, which cannot be right."
                " Leave the model out, or `exclude` the tensor to keep the base's."
            )
        report.squares += float(np.square(merged - base.astype(np.float64)).sum())
        pieces.append((start, rounded(merged, tensor, context.kernels)))
    return Merged(pieces, report)


def _mean(rows: np.ndarray, weights: Sequence[float], dtype: np.dtype) -> np.ndarray:
    """Return the weighted mean of rows, which rounds to a dtype as the exact one does.

    In float64 where all that its rounding can do leaves the result as it is, else in Python's exact
    fractions. Rows that are alike give themselves; of what is not finite comes anything.
    """
    alike, finite = (rows == rows[0]).all(axis=0), np.isfinite(rows).all(axis=0)
    factors = np.array(weights)
    with np.errstate(all="ignore"):
        merged = np.where(alike, rows[0], factors @ rows / factors.sum())
        most = np.abs(factors) @ np.abs(rows) / factors.sum() * 2.0**-48 + 1e-300
        near = (merged - most).astype(dtype) == (merged + most).astype(dtype)
    exact, total = [Fraction(weight) for weight in weights], sum(map(Fraction, weights))
    for i in np.flatnonzero(~alike & finite & ~near).tolist():
        column = zip(rows[:, i].tolist(), exact, strict=True)
        merged[i] = float(sum(Fraction(x) * weight for x, weight in column) / total)
    return merged
