"""Plan -> jobs: which ranges of which tensors are ranked together, and in which pieces they go.

A *chunk* is what is computed at once, small enough for the second-level cache. A *segment* is a run
of chunks: what one thread reads and does in one go, and what is noted as done. A *job* is what must
be known together: the tensors, or the part of one, whose entries are ranked together. How large
they are is the plan's (`sizes`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.methods.aggregates import matrices
from breadcrumbs.methods.transforms import Band
from breadcrumbs.plan import USUAL, Plan, Sizes, TensorPlan

#: Small tensors are one task up to this part of what a thread holds.
SEVERAL = 64


@dataclass(frozen=True)
class Piece:
    """The entries ``start`` to ``stop`` of the tensor number ``index`` of the plan."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True)
class Segment:
    """A run of chunks of one piece. first_chunk: number of its first chunk within the job."""

    index: int
    start: int
    stop: int
    first_chunk: int


@dataclass(frozen=True)
class Job:
    """Pieces that are ranked together, or, where ``survey`` is false, need nothing first.

    unit: entries ranked together; a divisor of every chunk but the last if there is no survey, so
    that a chunk is a row, however long, where the whole tensor is looked at.
    ranks: of each model, ``(first, last)``: the ranks ``first < rank <= last`` of a unit stay; of
    bands only.
    dtype: raw dtype that all its tensors are read as.
    rows: tensors that are read for each segment at most, the base's among them.
    survey: whether a unit is larger than a chunk, so that its cuts must be found first.
    together: whether its unit is the whole model, or a component of a pipeline. whole: whether
    each piece is one segment.
    blocks: entries that segments to write are made of, 0 if there is no such limit. sizes: those of
    the plan.
    """

    pieces: tuple[Piece, ...]
    unit: int
    ranks: tuple[tuple[int, int], ...]
    dtype: np.dtype
    rows: int
    survey: bool
    together: bool = False
    whole: bool = False
    blocks: int = 0
    sizes: Sizes = USUAL

    @property
    def unit_id(self) -> tuple[int, int]:
        """What tells it from other jobs: the tensor and the first entry of its first piece."""
        return self.pieces[0].index, self.pieces[0].start

    @property
    def chunk(self) -> int:
        """Entries of a chunk."""
        chunk = self.sizes.chunk
        return chunk if self.survey else max(1, chunk // self.unit) * self.unit

    def segments(self, rows: int | None = None) -> Iterator[Segment]:
        """Yield the segments to write, or those to survey, of which only ``rows`` are read."""
        chunk, each = self.chunk, (rows or self.rows) * self.dtype.itemsize
        step = max(self.sizes.least, self.sizes.arena // each // chunk) * chunk
        if self.blocks:  # what is read from task files is unpacked block by block
            step = max(1, step // self.blocks) * self.blocks
        if self.whole and rows is None:
            step = max(piece.stop - piece.start for piece in self.pieces)
        number = 0
        for piece in self.pieces:
            for start in range(piece.start, piece.stop, step):
                stop = min(piece.stop, start + step)
                yield Segment(piece.index, start, stop, number)
                number += -(-(stop - start) // chunk)


def jobs(plan: Plan) -> list[Job]:
    """Return the jobs of a plan, copies included, in the order of the base's tensors."""
    band, chances = plan.lowered.band, plan.lowered.chances
    whole = plan.lowered.in_memory
    rows = 1 + min(plan.sizes.fused, len(plan.models))
    blocks = BLOCK if any(model.cut for model in plan.models) else 0
    result: list[Job] = []
    components: dict[str, list[Piece]] = {}
    for index, tensor in enumerate(plan.tensors):
        n, shape = tensor.base.size, tensor.base.shape
        if n == 0 or tensor.tied:
            continue
        if tensor.copied or band is None:
            unit = shape[-1] if chances and shape else 1
            mine, size = blocks if unit == 1 else 0, alone(plan, tensor)
            pieces = tuple(Piece(index, at, min(n, at + size)) for at in range(0, n, size))
            dtype = _dtype([tensor])
            more = {"whole": whole, "blocks": mine, "sizes": plan.sizes}
            result.append(Job(pieces, unit, (), dtype, rows, False, **more))
        elif _granularity(band, tensor) == "model":
            components.setdefault(tensor.component, []).append(Piece(index, 0, n))
        else:
            result.extend(_tensor_jobs(plan, band, tensor, index, rows))
    for together in components.values():
        assert band is not None
        together.sort(key=lambda piece: plan.tensors[piece.index].name)
        n = sum(piece.stop for piece in together)
        mine = [plan.tensors[piece.index] for piece in together]
        ranks = _ranks(band, n, mine[0], _still(plan, mine))
        dtype = _dtype(mine)
        pieces = tuple(together)
        more = {"together": True, "whole": whole, "sizes": plan.sizes}
        result.append(Job(pieces, n, ranks, dtype, rows, True, **more))
    return result


def together(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Yield the jobs in their order, small ones several at a time: what a thread does at a go."""
    some: list[Job] = []
    room = 0
    for job in jobs:
        n = sum(piece.stop - piece.start for piece in job.pieces)
        size, most = n * job.rows * job.dtype.itemsize, job.sizes.arena // SEVERAL
        if some and (job.survey or size > room):
            yield some
            some = []
        if job.survey or size > most:
            yield [job]
            continue
        room = (room if some else most) - size
        some.append(job)
    if some:
        yield some


def repeats(plan: Plan) -> Iterator[tuple[int, Segment]]:
    """Yield what tied copies repeat: the number of a tensor, and the segment of the copy of it.

    To be written when all else is.
    """
    numbers = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
    for index, tensor in enumerate(plan.tensors):
        if tensor.tied:
            size, step = tensor.base.size, plan.sizes.repeat
            for start in range(0, size, step):
                segment = Segment(index, start, min(size, start + step), start // step)
                yield numbers[tensor.tied], segment


def alone(plan: Plan, tensor: TensorPlan) -> int:
    """Return how many entries of a tensor are held at once where an aggregate looks at all of it:
    those of one matrix of a stack, or some runs, where nothing must be known of the others."""
    aggregate, shape = plan.lowered.whole, tensor.base.shape
    alike = plan.lowered.shaped is not None or plan.lowered.finish is not None
    if tensor.copied or not plan.lowered.in_memory or plan.lowered.band:
        return tensor.base.size
    if alike and (aggregate is None or aggregate.run(tensor.values)):
        mine = matrices.each(tensor.name, shape, tensor.values)
        whole = aggregate is not None or len(mine) < 2
        return tensor.base.size if whole else math.prod(mine)
    assert aggregate is not None
    run = aggregate.run(tensor.values)
    if run:
        return min(max(1, plan.sizes.chunk // run) * run, tensor.base.size)
    each = aggregate.each(tensor.name, shape, tensor.values)
    return math.prod(each) if len(each) > 1 else tensor.base.size


def by_entry(plan: Plan, tensor: TensorPlan, chunk: int) -> bool:
    """Return whether a tensor is merged chunk by chunk, since none of its matrices is looked at."""
    lowered, shape = plan.lowered, tensor.base.shape
    mine = matrices.each(tensor.name, shape, tensor.values)
    if lowered.finish is not None and (lowered.finish.rows or len(mine) == 2):
        return False
    if lowered.shaped is not None and len(mine) == 2:
        return False
    if lowered.whole is None:
        return True
    if not lowered.whole.by_entry or tensor.base.size % chunk == 1:
        return False  # NumPy adds up the numbers of one entry in another order
    return len(lowered.whole.each(tensor.name, shape, tensor.values)) != 2


def in_turns(plan: Plan, tensor: TensorPlan, n: int) -> tuple[int, ...] | None:
    """Return the shape of what is combined of n entries, if its task vectors come in turn.

    Those of a large matrix, or of what is combined entry by entry.
    """
    aggregate, lowered = plan.lowered.whole, plan.lowered
    if aggregate is None or not aggregate.turns or n < plan.sizes.turns or tensor.careful:
        return None
    if lowered.shaped or lowered.finish or lowered.fitted:
        return None
    shape = aggregate.each(tensor.name, tensor.base.shape, tensor.values)
    return shape if math.prod(shape) == n else None


def _tensor_jobs(
    plan: Plan, transform: Band, tensor: TensorPlan, index: int, rows: int
) -> Iterator[Job]:
    more = {"whole": plan.lowered.in_memory, "sizes": plan.sizes}
    n, shape = tensor.base.size, tensor.base.shape
    by_row = _granularity(transform, tensor) == "row"
    unit = shape[-1] if by_row and shape else n
    ranks = _ranks(transform, unit, tensor, _absent([tensor]) if unit == n else ())
    dtype = _dtype([tensor])
    if unit <= plan.sizes.chunk or in_rows(plan, tensor):
        yield Job((Piece(index, 0, n),), unit, ranks, dtype, rows, survey=False, **more)
        return
    for start in range(0, n, unit):
        piece = Piece(index, start, start + unit)
        yield Job((piece,), unit, ranks, dtype, rows, survey=True, **more)


def in_rows(plan: Plan, tensor: TensorPlan) -> bool:
    """Return whether a chunk is a row, however long: ranked by itself, where all are looked at."""
    transform, shape = plan.lowered.band, tensor.base.shape
    if transform is None or not shape or shape[-1] <= plan.sizes.chunk:
        return False
    if not (plan.lowered.looks_at_tensors or rescaled(tensor)):
        return False
    return tensor.base.size > shape[-1] and _granularity(transform, tensor) == "row"


def surveyed(plan: Plan, tensor: TensorPlan) -> str:
    """Return what unit larger than a chunk is surveyed: ``tensor``, ``row``, ``model`` or none."""
    transform, n = plan.lowered.band, tensor.base.size
    if not n or tensor.copied or transform is None or in_rows(plan, tensor):
        return ""
    unit = _granularity(transform, tensor)
    if unit == "row" and tensor.base.shape:
        n = tensor.base.shape[-1]
    return unit if unit == "model" or n > plan.sizes.chunk else ""


def rescaled(tensor: TensorPlan) -> bool:
    """Return whether some task vector is multiplied by the norm that it lost in the tensor."""
    return any(own.values.get("rescale") == "l1" for own in tensor.own)


def _granularity(transform: Band, tensor: TensorPlan) -> str:
    """Return the granularity, which is one for all models."""
    return transform.granularity(tensor.own[0].values if tensor.own else tensor.values)


def _ranks(
    transform: Band, unit: int, tensor: TensorPlan, absent: Sequence[int] = ()
) -> tuple[tuple[int, int], ...]:
    """Return the first and last rank that stay of each model, in a unit of the tensor.

    absent: of each model, how many entries of the unit it does not have or cannot change. These are
    0, the smallest there are, and count nowhere: the others are ranked as if they were alone.
    """
    known: dict[tuple[int, int], tuple[int, int]] = {}
    lacks = absent or (0,) * len(tensor.own)
    keys = [(id(own.values), n) for own, n in zip(tensor.own, lacks, strict=True)]
    for own, key in zip(tensor.own, keys, strict=True):
        if key not in known:
            scalar = not tensor.base.shape and transform.keep_scalars(own.values)
            less = key[1]
            first, last = (0, 1) if scalar else transform.ranks(unit - less, own.values)
            known[key] = first + less, last + less
    return tuple(known[key] for key in keys)


def _absent(tensors: Sequence[TensorPlan]) -> tuple[int, ...]:
    """Return how many entries each model lacks of some tensors, in rows that it does not have."""
    each = [[0 if m is None else m.absent for m in tensor.models] for tensor in tensors]
    return tuple(map(sum, zip(*each, strict=True)))


def _still(plan: Plan, tensors: Sequence[TensorPlan]) -> tuple[int, ...]:
    """Return how many entries of some tensors each model cannot change: rows that it does not have,
    and the tensors that its adapter leaves alone.

    The zeros of these have the lowest ranks, and a share of them would be none of the model. Where
    nothing is left there is nothing to rank, and all count.
    """
    absent = _absent(tensors)
    sizes = [math.prod(tensor.base.shape) for tensor in tensors]
    found = []
    for t, untouched in enumerate(plan.untouched):
        same = absent[t] + sum(
            size - (0 if (model := tensor.models[t]) is None else model.absent)
            for tensor, size in zip(tensors, sizes, strict=True)
            if tensor.name in untouched
        )
        found.append(same if same < sum(sizes) else 0)
    return tuple(found)


def _dtype(tensors: Sequence[TensorPlan]) -> np.dtype:
    """Return the dtype of raw weights that holds all of the tensors exactly, for `kernels`."""
    names = {t.base.dtype for t in tensors}
    names |= {model.dtype for t in tensors for model in t.models if model is not None}
    if names == {"BF16"}:
        return np.dtype(np.uint16)
    return np.dtype(np.float64 if "F64" in names else np.float32)
