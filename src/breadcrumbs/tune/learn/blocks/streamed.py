"""The module of a suite, of which one block has weights at a time, and what goes through it.

The foundation loads the base whole, once; then the weights of all blocks are let go. A block is
filled with those of one model, in float32, read from its files when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.errors import MismatchError, listing
from breadcrumbs.evaluate.foundations.foundation import Batch, Featured, on
from breadcrumbs.modules import stack
from breadcrumbs.modules.precise import precise
from breadcrumbs.modules.slots import Slots, as_torch
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    import torch

    from breadcrumbs.checkpoint.tensors import Checkpoint
    from breadcrumbs.evaluate.data.drawn import Drawn
    from breadcrumbs.evaluate.suite import Suite
    from breadcrumbs.modules.stack import Call

Weights = dict[str, "torch.Tensor"]
#: Rows of a step, which stay together from the first block to the last.
BATCH = 16


class Streamed:
    """A module with one block of weights.

    suite: opened for learning. drawn: rows of each task. size: rows of a batch, which stay
    together. SuiteError for a foundation without blocks.
    """

    def __init__(
        self,
        suite: Suite,
        drawn: Mapping[str, Drawn],
        *,
        size: int,
        device: torch.device,
        precision: str,
    ):
        import torch

        self.suite, self.foundation = suite, suite.foundation
        self.device, self.precision = device, precision
        self.module = self.foundation.load(suite.base)
        with checkpoint.open(suite.base) as base:
            self.slots = Slots(self.module, base)
        self._heads: dict[str, Any] = {}
        self.batches: dict[str, list[Batch]] = {}
        host = torch.device("cpu")
        with torch.no_grad(), precise(precision, host):
            for name, rows in drawn.items():
                task = suite.task(name)
                self.batches[name] = list(self.foundation.prepare(task, rows.rows, size))
                if not isinstance(self.foundation, Featured):
                    self._heads[name] = self.foundation.head(self.module, task)
            first = next(iter(drawn))
            run = self._run(first, self.batches[first][0])
            says = getattr(self.foundation, "blocks", None)
            given = None if says is None else says(self.module)
            self.stack = stack.find(self.module, run, self.foundation.kind, given)
        self._heads = {name: on(head, device) for name, head in self._heads.items()}
        self.module.requires_grad_(False)
        #: Of each block, the tensors of the module by their names there.
        self.places: list[Weights] = []
        known = {id(slot.tensor): slot.names[0] for slot in self.slots.names.values()}
        for block in self.stack.blocks:
            own = (*block.parameters(), *block.buffers())
            self.places.append({known[id(t)]: t for t in own if id(t) in known})
        shapes = {name: t.shape for own in self.places for name, t in own.items()}
        for tensor in (t for own in self.places for t in own.values()):
            tensor.data = tensor.data.new_empty(0)
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            # In place: these are the tensors that slots know.
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            tensor.data = tensor.data.to(device, dtype)
        for own in self.places:
            for name, tensor in own.items():
                tensor.data = tensor.data.new_zeros(()).expand(shapes[name])  # one entry's memory
        #: Which places count of the batch that is on its way (`advance`).
        self.counts: torch.Tensor | None = None
        self._block = {name: number for number, own in enumerate(self.places) for name in own}

    def open(self, path: str) -> Model:
        """Return a model; MismatchError unless it fits the base."""
        state = view.open_model(self.suite.base, path)
        try:
            inside: list[dict[str, str]] = [{} for _ in self.places]
            outside: list[tuple[torch.Tensor, str]] = []
            for slot, name in self.slots.filled(state):
                number = self._block.get(slot.names[0])
                if number is None:
                    outside.append((slot.tensor, name))
                else:
                    inside[number][slot.names[0]] = name
            for own, mine in zip(self.places, inside, strict=True):
                if lost := [name for name in own if name not in mine]:
                    raise MismatchError(
                        f"{path}: has no tensor for {listing(lost)} of the module. Give a model"
                        " with all tensors of the base."
                    )
        except BaseException:
            state.close()
            raise
        return Model(path, state, inside, outside)

    def block_of(self, name: str) -> tuple[int, str] | None:
        """Return the block that a tensor of a file goes to, and its name in the module."""
        slot = self.slots.slot(name)
        number = None if slot is None else self._block.get(slot.names[0])
        return None if slot is None or number is None else (number, slot.names[0])

    def put(self, number: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Let a block have these weights, as they are."""
        for name, tensor in self.places[number].items():
            tensor.data = weights[name].to(self.device)

    def free(self, number: int) -> None:
        """Let go of the weights of a block."""
        for tensor in self.places[number].values():
            tensor.grad = None
            tensor.requires_grad_(False)
            tensor.data = tensor.data.new_zeros(()).expand(tensor.shape)

    def settle(self, model: Model) -> None:
        """Let the module have a model's weights outside of blocks."""
        import torch

        with torch.no_grad():
            for tensor, name in model.outside:
                tensor.copy_(as_torch(model.state[name]))

    def features(self, task: str, stream: Stream) -> np.ndarray:
        """Return the features (rows, width) of the rows of a task, in the order of batches, of
        what the last block gave; by the weights outside of blocks that are in the module."""
        import torch

        found = []
        with torch.no_grad():
            for batch, hidden in zip(self.batches[task], stream.hidden, strict=True):
                mine = Batch(on(batch.inputs, self.device), batch.rows, batch.labels)
                with precise(self.precision, self.device):
                    out = self.stack.end(self._run(task, mine), hidden)
                found.append(out.float().cpu().numpy())
        return np.concatenate(found)

    def enter(self, model: Model, task: str) -> Stream:
        """Return what a model makes of the rows of a task before the first block."""
        import torch

        self.settle(model)
        with torch.no_grad():
            hidden, calls, counts = [], [], []
            for batch in self.batches[task]:
                mine = Batch(on(batch.inputs, self.device), batch.rows, batch.labels)
                with precise(self.precision, self.device):
                    x, its = self.stack.capture(self._run(task, mine))
                hidden.append(x.float())
                calls.append(its)
                counts.append(_counts(mine, x))
        return Stream(hidden, calls, counts)

    def through(self, number: int, hidden: torch.Tensor, call: Call) -> torch.Tensor:
        """Return what a block makes of a batch, float32."""
        with precise(self.precision, self.device):  # anew each time: it remembers casts of weights
            return self.stack.through(number, hidden, call).float()

    def advance(self, number: int, stream: Stream) -> list[torch.Tensor]:
        """Return what a block makes of all batches of a stream."""
        import torch

        found = []
        with torch.no_grad():
            all_ = zip(stream.hidden, stream.calls, stream.counts, strict=True)
            for hidden, calls, self.counts in all_:
                found.append(self.through(number, hidden, calls[number]))
        return found

    def _run(self, task: str, batch: Batch) -> Callable[[], Any]:
        made = self.foundation
        if isinstance(made, Featured):
            return lambda: made.features(self.module, batch)
        return lambda: made.logits(self.module, self._heads[task], batch)


@dataclass(frozen=True)
class Model:
    """An open model. inside: of each block, names of its file by those of the module. outside:
    other tensors of the module, and the names of what goes in there."""

    path: str
    state: Checkpoint
    inside: list[dict[str, str]]
    outside: list[tuple[torch.Tensor, str]]

    def block(self, number: int) -> Weights:
        """Return the weights of a block, by the module's names, in float32 if they are floats."""
        found = {}
        for own, name in self.inside[number].items():
            tensor = as_torch(self.state[name])
            found[own] = tensor.float() if tensor.is_floating_point() else tensor
        return found


@dataclass
class Stream:
    """What a model has made so far of the rows of a task, a batch each.

    hidden: (rows, ..., width), float32. calls: what each block takes in besides. counts: which
    places are no padding, booleans (rows, tokens), or None if all are.
    """

    hidden: list[torch.Tensor]
    calls: list[list[Call]]
    counts: list[torch.Tensor | None]


def _counts(batch: Batch, hidden: torch.Tensor) -> torch.Tensor | None:
    import torch

    shape = tuple(hidden.shape[:2])
    mask = batch.inputs.get("attention_mask")
    if mask is not None and tuple(mask.shape) == shape:
        return mask.bool()
    length = batch.inputs.get("length")
    if length is not None and tuple(length.shape) == (shape[0], 1):
        return torch.arange(shape[1], device=length.device) < length
    return None
