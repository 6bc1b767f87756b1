"""Sums of what task files keep, added to the base entry by entry: no fine-tuning is made whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import kernels
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.kernels import plain
from breadcrumbs.plan import TensorPlan
from breadcrumbs.sink import SegmentReport
from breadcrumbs.tasks.about import BLOCK
from breadcrumbs.tasks.view import KeptBytes
from breadcrumbs.transforms import Draw, Everything
from breadcrumbs.work import Segment

if TYPE_CHECKING:
    from breadcrumbs.tensors import Merging

#: Entries kept of a block by all models that are held at once; beyond, models are read in groups.
MOST = 8 << 20


def apply(it: Merging) -> bool:
    """Return whether a tensor is merged here, if what is asked for is a sum of all that is kept."""
    sources = [model.source for model in it.models]
    if not any(isinstance(source, KeptBytes) for source in sources):
        return False
    return (
        all(isinstance(s, KeptBytes) or s is it.tensor.base.source for s in sources)
        and isinstance(it.engine.plan.method.transform, Draw | Everything)
        and it.dtype != np.float64
        and it.tensor.dtype in ("BF16", "F32")
        and it.engine.steps is None
        and not it.careful
    )


def merge(it: Merging, segment: Segment, report: SegmentReport) -> np.ndarray | None:
    """Return the merged segment, which begins with a block, or None where it may not be exact.

    Where float64 may not hold a sum without weights, that of many models, it is a pair as with
    weights, there and in what follows of the tensor.
    """
    if not it.pairs:
        found = _merged(it, segment, it.unequal, report)
        if found is not None or it.unequal.size:
            return found
        it.pairs = True
    return _merged(it, segment, np.ones(len(it.models)), report)


def _merged(
    it: Merging, segment: Segment, weights: np.ndarray, report: SegmentReport
) -> np.ndarray | None:
    n = segment.stop - segment.start
    out = it.raw_buffer(n)
    (base,) = it.engine.load([it.tensor.base], segment.start, n, it.dtype)
    squares, exact = 0.0, True
    bits = np.array(plain.NO_EXTENT, np.uint32)
    for start in range(0, n, BLOCK):
        run = slice(start, min(n, start + BLOCK))
        number = (segment.start + start) // BLOCK
        found = _block(it, number, weights, base[run], bits, out[run])
        if found is None:
            return None
        squares, exact = squares + found[0], exact and not found[1]
    inexact = not exact if weights.size else None
    return it.accept(it.factor * it.factor * squares, inexact, bits, out, report)


def _block(
    it: Merging, number: int, weights: np.ndarray, base, bits, out
) -> tuple[float, bool] | None:
    """Merge one block into ``out``; None where that needs the whole fine-tunings."""
    tools = kernels.of_kept(it.kernels)
    sources = [model.source for model in it.models]
    start = number * BLOCK
    sizes = [s.number(start, start + 1) if isinstance(s, KeptBytes) else 0 for s in sources]
    groups = list(_groups(sizes))
    carried = it.engine.buffer("carried", (2, base.size if len(groups) > 1 else 0), np.float64)
    carried[:] = 0.0
    zeros, inexact, squares = True, False, 0.0
    for group in groups:
        ends = np.concatenate([[0], np.cumsum(sizes[group])]).astype(np.int64)
        positions = it.engine.buffer("positions", (int(ends[-1]),), np.uint32)
        values = it.engine.buffer("values", (int(ends[-1]),), it.dtype)
        for t, source in enumerate(sources[group]):
            mine = slice(ends[t], ends[t + 1])
            if mine.start < mine.stop:
                assert isinstance(source, KeptBytes)
                kept = source.kept(number, tools, positions[mine])
                values[mine] = _raw(kept.values, it.dtype)
            # A zero that all models hold has a sign that the sum does not know.
            zeros = zeros and tools.zeros(values[mine]) > 0
        last = group.stop == len(sources)
        squares, odd = tools.merge_kept(
            base,
            ends,
            positions,
            values,
            weights[group],
            it.factor,
            bits,
            out,
            carried,
            last,
        )
        inexact = inexact or odd
    return None if zeros else (squares, inexact)


def _groups(sizes: Sequence[int]) -> Iterator[slice]:
    """Yield runs of models that keep `MOST` entries together, or are one."""
    first = held = 0
    for t, size in enumerate(sizes):
        if t > first and held + size > MOST:
            yield slice(first, t)
            first, held = t, 0
        held += size
    yield slice(first, len(sizes))


def _raw(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values as raw weights of the job's dtype."""
    return values.view(np.uint16) if dtype == np.uint16 else values.astype(dtype, copy=False)


def kept(model: Checkpoint, tensor: TensorPlan, t: int, segment: Segment) -> int:
    """Return how many entries of a segment model t keeps: all, unless a task file says it."""
    mine = tensor.models[t]
    if model.task is None or mine is None:
        return segment.stop - segment.start
    if not isinstance(mine.source, KeptBytes):
        return 0
    return mine.source.number(segment.start, segment.stop)
