"""How long the base and the task vectors are: exactly of small models, else from a sample.

Entries of the merged tensors lie in blocks of `BLOCK`, those of task files in theirs. Of a model
with more than `BLOCKS` of them so many are read, one from every equal part of its entries, and a
length is::

    |tau|  ~  sqrt(N * mean over the blocks read of the mean square of tau in it)

A block is met as often as its share of the N entries, so that this is right on average, whatever
the sizes of tensors. The blocks depend on the shapes alone: one plan gives one answer. The error is
some percent where entries are of like size everywhere, and some ten percent where few rows of a
large embedding hold all of a task vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint import sparse
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.plan.plan import Plan, TensorPlan

#: Entries that are read at once of a sample, and of a small model.
BLOCK, WHOLE = 1024, 1 << 16
#: Blocks that are read of each model at most.
BLOCKS = 256
#: Where models are task files, of which whole blocks are unpacked: of all of them together, and of
#: one of them at least and at most.
TASK_BLOCKS, OF_ONE = 128, (4, 64)
#: The square of what is larger may not be finite.
_MOST = 1e150
#: Where in its part of the entries a block is: fractions that spread evenly.
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Lengths:
    """Euclidean lengths over the merged tensors.

    base: of the base. models: of the models' task vectors. weighted: with their weights, those of
    overrides included. exact: whether every entry was read.
    """

    base: float
    models: tuple[float, ...]
    weighted: tuple[float, ...]
    exact: bool

    @property
    def mean(self) -> float:
        """The mean length of the task vectors that have any, each by the size of its weight.

        0 where there are none.
        """
        both = zip(self.weighted, self.models, strict=True)
        total = math.fsum(weighted / own for weighted, own in both if own)
        return math.fsum(self.weighted) / total if total else 0.0


def of(plan: Plan) -> Lengths:
    """Return the lengths of what a plan merges; what is not finite counts as 0."""
    tensors = [tensor for tensor in plan.merged if tensor.base.size]
    models = len(plan.models)
    sizes, most, each = [tensor.base.size for tensor in tensors], BLOCKS, BLOCK
    if any(model.cut for model in plan.models) and _number(sizes, BLOCK) > OF_ONE[1]:
        most, each = max(OF_ONE[0], min(OF_ONE[1], TASK_BLOCKS // models)), sparse.BLOCK
    blocks, scale, exact = _blocks(sizes, most, each)
    found = np.zeros((1 + 2 * models, 1 + len(blocks)))
    for column, (number, start, n) in enumerate(blocks):
        factor = 1.0 if exact else scale / n
        found[:, column] = _squares(tensors[number], start, n)
        found[:, column] *= factor
    sums = [math.sqrt(math.fsum(row)) for row in found.tolist()]
    return Lengths(sums[0], tuple(sums[1 : 1 + models]), tuple(sums[1 + models :]), exact)


def _number(sizes: Sequence[int], each: int) -> int:
    return sum(-(-size // each) for size in sizes)


def _blocks(
    sizes: Sequence[int], most: int, each: int = BLOCK
) -> tuple[list[tuple[int, int, int]], float, bool]:
    """Return blocks (number of the tensor, first entry, entries), what their mean squares are
    multiplied by, and whether they are all. each: entries of one."""
    if _number(sizes, each) <= most:
        return list(_all(sizes, each)), 1.0, True
    ends = np.cumsum(np.array(sizes, np.int64))
    entries = int(ends[-1])
    found = []
    for i in range(most):
        place = min(entries - 1, int((i + (i * _GOLDEN) % 1.0) * entries / most))
        number = int(np.searchsorted(ends, place, side="right"))
        size = sizes[number]
        start = (place - (int(ends[number]) - size)) // each * each
        found.append((number, start, min(each, size - start)))
    return found, entries / most, False


def _all(sizes: Sequence[int], each: int) -> Iterator[tuple[int, int, int]]:
    each = max(each, WHOLE)
    for number, size in enumerate(sizes):
        for start in range(0, size, each):
            yield number, start, min(each, size - start)


def _squares(tensor: TensorPlan, start: int, n: int) -> np.ndarray:
    """Return sums of squares over entries: of the base, of task vectors, of weighted ones."""
    models = len(tensor.models)
    found = np.zeros(1 + 2 * models)
    base = _read(tensor.base, start, n)
    found[0] = _square(base)
    for number, (model, own) in enumerate(zip(tensor.models, tensor.own, strict=True)):
        if model is not None:
            found[1 + number] = square = _change(model, base, start)
            found[1 + models + number] = own.weight**2 * square
    return found


def _change(model: Tensor, base: np.ndarray, start: int) -> float:
    """Return the sum of squares of a task vector at the entries of ``base``, from ``start`` on.

    Of a task that was cut, what it was before: its file says which share was kept.
    """
    source = model.source
    if not isinstance(source, sparse.Sparse):
        tau = _read(model, start, base.size)
        tau -= base
        return _square(tau)
    block, first = divmod(start, sparse.BLOCK)
    kept = source.kept(block)
    ends = np.array((first, first + base.size), np.uint32)  # others would have all positions copied
    begin, end = np.searchsorted(kept.positions, ends)
    tau = kept.values[begin:end].astype(np.float64)
    tau -= base[kept.positions[begin:end].astype(np.int64) - first]
    share = source.share
    return _square(tau) / (share if 0 < share < 1 else 1.0)


def _read(tensor: Tensor, start: int, n: int) -> np.ndarray:
    entries = np.empty(n, DTYPES[tensor.dtype])
    tensor.read_into(start, entries)
    return entries.astype(np.float64)


def _square(values: np.ndarray) -> float:
    square = float(np.einsum("i,i->", values, values))
    if math.isfinite(square):
        return square
    return _square(np.where(np.abs(values) < _MOST, values, 0.0))
