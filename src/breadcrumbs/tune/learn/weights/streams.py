"""What runs over a plan: weights into a module, and what models add beside a gradient."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.engine.consumers import Reading, Writing
from breadcrumbs.engine.context import Context
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Nowhere, SegmentReport
from breadcrumbs.engine.terms import Terms
from breadcrumbs.engine.vectors import Chunk, Vectors
from breadcrumbs.errors import RecipeError
from breadcrumbs.modules.slots import as_torch
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.units import Segment, repeats

if TYPE_CHECKING:
    import torch

    from breadcrumbs.modules.slots import Slots

#: (gradient (n,) float64, terms, chunk, parts (T, n)) -> a row of numbers, which are added up.
Scan = Callable[[np.ndarray, Terms, Chunk, np.ndarray], np.ndarray]


class Module(Nowhere):
    """An output that writes into the weights of a module."""

    def __init__(self, plan: Plan, slots: Slots):
        self.tensors, self.slots = plan.tensors, slots
        self._flat = [self._place(tensor) for tensor in plan.tensors]

    def _place(self, tensor: TensorPlan) -> torch.Tensor | None:
        slot = self.slots.names.get(tensor.output)
        if slot is None:
            return None
        if not slot.tensor.is_contiguous():
            raise RecipeError(f"tensor {tensor.name!r} does not lie in a row in the module.")
        return slot.tensor.detach().view(-1)

    def has(self, index: int) -> bool:
        """Whether the module has a place for a tensor."""
        return self._flat[index] is not None

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        flat = self._flat[index]
        if flat is not None:
            flat[start : start + values.size].copy_(as_torch(values))

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        """Return what was written, as it was: the module has no fewer digits."""
        flat = self._flat[index]
        assert flat is not None
        return (
            flat[start : start + n].float().cpu().numpy().astype(DTYPES[self.tensors[index].dtype])
        )


class Putting(Writing):
    """Writes into a module. fresh: whether what is not merged is written too."""

    several = False

    def __init__(self, output: Module, fresh: bool):
        super().__init__(output)
        self.fresh = fresh

    def copy(self, context: Context, tensor: TensorPlan, segment: Segment) -> SegmentReport:
        if self.fresh:
            return super().copy(context, tensor, segment)
        return SegmentReport([0] * len(context.plan.models))

    def end(self, plan: Plan) -> None:
        """Write tied copies, where the module has one of its own."""
        output: Any = self.output
        for of, segment in repeats(plan):
            if output.has(of) and output.has(segment.index):
                n = segment.stop - segment.start
                output.write(segment.index, segment.start, output.read(of, segment.start, n))


class Scanning(Reading):
    """Looks at the parts of what has a gradient, beside it. gradients: None for all, and zeros."""

    def __init__(
        self, plan: Plan, gradients: Sequence[torch.Tensor | None] | None, scan: Scan, width: int
    ):
        self.plan, self.gradients, self.scan, self.width = plan, gradients, scan, width
        self._found: dict[str, dict[int, np.ndarray]] = {}
        self._lock = threading.Lock()

    def merge(self, terms: Terms, segment: Segment, ballot: Ballot | None) -> SegmentReport:
        gradient = None if self.gradients is None else self.gradients[segment.index]
        if self.gradients is not None and gradient is None:
            return SegmentReport([0] * terms.number)
        it, total = Vectors(terms), np.zeros(self.width)
        for chunk in it.chunks(segment, again=True):
            mine = np.zeros(chunk.base.size)
            if gradient is not None:
                mine = gradient[chunk.start : chunk.start + chunk.base.size].double().cpu().numpy()
            total += self.scan(mine, terms, chunk, parts(it, chunk))
        with self._lock:
            self._found.setdefault(terms.tensor.name, {})[segment.start] = total
        return SegmentReport([0] * terms.number)

    def of(self, name: str) -> np.ndarray:
        """Return what was found of a tensor (width,)."""
        rows = self._found.get(name, {})
        return sum((rows[start] for start in sorted(rows)), np.zeros(self.width))


def parts(it: Vectors, chunk: Chunk) -> np.ndarray:
    """Return (models that have the tensor, n): what each adds for a weight of 1."""
    aggregate = it.lowered.elementwise
    if aggregate is not None:
        assert aggregate.parts is not None
        return it.alpha * aggregate.parts(it.present(chunk), it.values)
    terms = it.terms  # a common weight is in the factor, what rescales in either
    return chunk.taus * (terms.factor * terms.weights / terms.given)[:, None]


def products(gradient: np.ndarray, terms: Terms, chunk: Chunk, parts: np.ndarray) -> np.ndarray:
    """Return the inner products of parts with the gradient (models,)."""
    found = np.zeros(terms.number)
    found[terms.who] = parts @ gradient
    return found


def entries(gradient: np.ndarray, terms: Terms, chunk: Chunk, parts: np.ndarray) -> np.ndarray:
    """Return how many entries of the parts are not 0 (1,)."""
    return np.array([np.count_nonzero(parts)])
