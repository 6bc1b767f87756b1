"""What is merged in coordinates, carried out and lifted back into the tensors of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from breadcrumbs.checkpoint.memory import ArrayBytes
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.engine import runner
from breadcrumbs.engine.facts import Facts
from breadcrumbs.merging import arrays, calibration
from breadcrumbs.plan import Plan, TensorPlan, spaces
from breadcrumbs.plan.plan import Coordinates

#: Entries that are lifted at once.
_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Lifted:
    """The bytes, in float64, of a tensor plus the product ``left (m, r)`` times ``right (r, n)``.

    Rows are made some at a time, always the same ones together, so that the bits do not depend on
    how they are asked for.
    """

    target: Tensor
    left: np.ndarray
    right: np.ndarray

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``start`` on."""
        first, last = start // 8, -(-(start + len(out)) // 8)
        values = np.empty(last - first, DTYPES[self.target.dtype])
        self.target.read_into(first, values)
        found = self.step(first, last)
        found += values.astype(np.float64)
        skip = start - first * 8
        np.frombuffer(out, np.uint8)[:] = found.view(np.uint8)[skip : skip + len(out)]

    def step(self, start: int, stop: int) -> np.ndarray:
        """Return the entries of the product from ``start`` to ``stop``, in float64."""
        m, n = self.left.shape[0], self.right.shape[1]
        rows = max(1, _AT_ONCE // n)
        first, last = start // (rows * n), -(-stop // (rows * n))
        found = np.empty((min(last * rows, m) - first * rows, n))
        for at in range(first * rows, min(last * rows, m), rows):
            mine = found[at - first * rows :][:rows]
            np.matmul(self.left[at : at + rows], self.right, out=mine)
        begin = start - first * rows * n
        return found.reshape(-1)[begin : begin + stop - start]


def settled(
    it: Plan,
    *,
    threads: int = 1,
    kernel: str = "auto",
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Plan:
    """Return a plan of which all that is merged in coordinates is merged, and copied as it is.

    That is done in memory: coordinates, and what is merged in full besides. Other plans come back
    as they are.
    """
    within = it.coordinates
    if within is None or within.rows:
        return it
    settings = {"threads": threads, "kernel": kernel}
    inner = within.plan
    facts, inner = Facts(), replace(inner, tensors=tuple(inner.merged), sizes=it.sizes)
    inner = calibration.fixed(inner, facts=facts, **settings)
    if within.bases.keys() >= {tensor.name for tensor in inner.tensors}:
        inner = replace(inner, task_length=_length(inner))  # of which a sample says too little
    sink = arrays.ArraySink(inner)
    rows = runner.write(inner, sink, facts=facts, **settings)
    steps = {name: found for name, found in sink.arrays.items() if name in within.bases}
    done = replace(within, plan=inner, rows=tuple(rows), steps=steps)
    tensors = tuple(_known(tensor, within, sink.arrays) for tensor in it.tensors)
    found = {"recipe": inner.recipe, "method": inner.method, "alphas": inner.alphas}
    return replace(it, tensors=tensors, coordinates=done, **found)


def _known(tensor: TensorPlan, within: Coordinates, found: Mapping[str, np.ndarray]) -> TensorPlan:
    """Return a tensor of the output with what was merged as what is copied. found: by name."""
    if tensor.onto is None or not isinstance(tensor.onto.source, spaces.Pending):
        return tensor
    values, target = found[tensor.output], tensor.onto.source.target
    if tensor.name not in within.bases:
        source = ArrayBytes(np.ascontiguousarray(values))
        return replace(tensor, onto=replace(target, dtype=tensor.dtype, source=source))
    left, right = within.bases[tensor.name].lifted(values)
    return replace(tensor, onto=replace(target, dtype="F64", source=Lifted(target, left, right)))


def _length(inner: Plan) -> float | None:
    """Return the mean length of task vectors that are in memory; None where there is none.

    As `plan.lengths.Lengths.mean` counts them: each by the size of its weight.
    """
    own, weighted = np.zeros(len(inner.models)), np.zeros(len(inner.models))
    for tensor in inner.tensors:
        for t, (model, mine) in enumerate(zip(tensor.models, tensor.own, strict=True)):
            if model is not None:
                square = float(np.square(model.read()).sum())
                own[t] += square
                weighted[t] += mine.weight**2 * square
    own, weighted = np.sqrt(own), np.sqrt(weighted)
    total = float((weighted[own > 0] / own[own > 0]).sum())
    return float(weighted.sum()) / total if total else None
