"""Sums of what task files keep, added to the base entry by entry: no fine-tuning is made whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from breadcrumbs.checkpoint.sparse import BLOCK, Kept, Sparse
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.merged import Merged
from breadcrumbs.engine.outputs import SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.kernels.bounds import NO_EXTENT
from breadcrumbs.plan.units import Segment


def merge(terms: Terms, segment: Segment) -> Merged | None:
    """Return the merged segment, which begins with a block, or None where it may not be exact.

    Where float64 may not hold a sum without weights, that of many models, it is a pair as with
    weights, there and in what follows of the tensor.
    """
    if not _applies(terms):
        return None
    if not terms.pairs:
        found = _merged(terms, segment, terms.unequal)
        if found is not None or terms.unequal.size:
            return found
        terms.pairs = True
    return _merged(terms, segment, np.ones(len(terms.models)))


def _applies(terms: Terms) -> bool:
    """Return whether all models are the base but for what is kept, and all of that is added up."""
    sources = [model.source for model in terms.models]
    if terms.counting or not any(isinstance(source, Sparse) for source in sources):
        return False
    return (
        all(isinstance(s, Sparse) or s is terms.tensor.base.source for s in sources)
        and terms.lowered.masks
        and not terms.lowered.band
        and terms.dtype != np.float64
        and terms.tensor.dtype in ("BF16", "F32")
        and not terms.context.replay
        and not terms.careful
    )


def _merged(terms: Terms, segment: Segment, weights: np.ndarray) -> Merged | None:
    n = segment.stop - segment.start
    out = terms.raw_buffer(n)
    space, report = terms.context.space, SegmentReport([0] * terms.number)
    (base,) = space.load([terms.tensor.base], segment.start, n, terms.dtype)
    squares, exact = 0.0, True
    bits = np.array(NO_EXTENT, np.uint32)
    for start in range(0, n, BLOCK):
        run = slice(start, min(n, start + BLOCK))
        number = (segment.start + start) // BLOCK
        found = _block(terms, number, weights, base[run], bits, out[run])
        if found is None:
            return None
        squares, exact = squares + found[0], exact and not found[1]
    inexact = not exact if weights.size else None
    factor = terms.factor * terms.factor
    values = terms.accept(factor * squares, inexact, bits, out, report)
    if values is None:
        return None
    terms.count_kept(segment, report)
    return Merged([(segment.start, values)], report)


def _block(
    terms: Terms, number: int, weights: np.ndarray, base, bits, out
) -> tuple[float, bool] | None:
    """Merge one block into ``out``; None where that needs the whole fine-tunings."""
    tools, own = terms.kernels, DTYPES["BF16" if terms.dtype == np.uint16 else "F32"]
    sources = [model.source for model in terms.models]
    start = number * BLOCK
    sizes = [s.number(start, start + 1) if isinstance(s, Sparse) else 0 for s in sources]
    groups = list(_groups(sizes, terms.context.plan.sizes.kept))
    carried = terms.context.space.buffer(
        "carried", (2, base.size if len(groups) > 1 else 0), np.float64
    )
    carried[:] = 0.0
    zeros, inexact, squares = True, False, 0.0
    for group in groups:
        ends = np.concatenate([[0], np.cumsum(sizes[group])]).astype(np.int64)
        positions = terms.context.space.buffer("positions", (int(ends[-1]),), np.uint32)
        values = terms.context.space.buffer("values", (int(ends[-1]),), terms.dtype)
        for t, source in enumerate(sources[group]):
            mine = slice(ends[t], ends[t + 1])
            if mine.start < mine.stop:
                assert isinstance(source, Sparse)
                room = Kept(positions[mine], values[mine].view(own))
                kept = source.kept(number, tools, room)
                if kept.values is not room.values:
                    values[mine] = _raw(kept.values, terms.dtype)
            # A zero that all models hold has a sign that the sum does not know.
            zeros = zeros and tools.zeros(values[mine]) > 0
        last = group.stop == len(sources)
        squares, odd = tools.merge_kept(
            base,
            ends,
            positions,
            values,
            weights[group],
            terms.factor,
            bits,
            out,
            carried,
            last,
        )
        inexact = inexact or odd
    return None if zeros else (squares, inexact)


def _groups(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Yield runs of models that keep so many entries together, or are one."""
    first = held = 0
    for t, size in enumerate(sizes):
        if t > first and held + size > most:
            yield slice(first, t)
            first, held = t, 0
        held += size
    yield slice(first, len(sizes))


def _raw(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return values as raw weights of the job's dtype."""
    return values.view(np.uint16) if dtype == np.uint16 else values.astype(dtype, copy=False)
