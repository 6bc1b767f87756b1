"""What a kind sees of the block that it fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.tune.learn.blocks.streamed import Stream, Streamed, Weights


@dataclass
class Block:
    """One block of the start, and the rows of all tasks before it.

    start, base: its weights, float32, by the module's names. tasks: in an order of their own.
    streams: what the blocks learned so far made of the rows. goals: what this block of the expert
    makes of what the expert's blocks before made, by task, a batch each.
    """

    number: int
    module: Streamed
    draw: Draw
    start: Weights
    base: Weights
    tasks: Sequence[str]
    streams: Mapping[str, Stream]
    goals: dict[str, list[torch.Tensor]]

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.module.device

    def place(self, weights: Weights) -> Weights:
        """Put weights into the module; return its tensors, which hold them now."""
        self.module.put(self.number, weights)
        return self.module.places[self.number]

    def batch(self, task: str, step: int) -> int:
        """Return which batch of a task a step takes: all in turn, each round in another order."""
        return turn(self.draw, task, self.number, len(self.streams[task].hidden))(step)

    def through(self, task: str, batch: int) -> torch.Tensor:
        """Return what the weights in the module make of a batch of the merged stream."""
        stream = self.streams[task]
        return self.module.through(
            self.number, stream.hidden[batch], stream.calls[batch][self.number]
        )

    def goal(self, task: str, batch: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what it should give, and which places count."""
        return self.goals[task][batch], self.streams[task].counts[batch]

    def error(self, outs: Mapping[str, Sequence[torch.Tensor]]) -> float:
        """Return the root of the mean `distance` of outputs of all tasks from the goals."""
        each = []
        for task in self.tasks:
            pairs = enumerate(outs[task])
            parts = [(float(distance(x, *self.goal(task, i))), len(x)) for i, x in pairs]
            each.append(math.fsum(d * n for d, n in parts) / sum(n for _, n in parts))
        return math.sqrt(math.fsum(each) / len(each))


def turn(draw: Draw, task: str, block: int, batches: int) -> Callable[[int], int]:
    """Return which of so many batches each step takes: all in turn, each round in another order."""

    def batch(step: int) -> int:
        round_, place = divmod(step, batches)
        return int(draw.batch(f"{task}\0{block}", round_, batches, batches)[place])

    return batch


def distance(out: torch.Tensor, goal: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over places of |out - goal|^2 / |goal|^2, of those that count."""
    squares = (out - goal).square().sum(-1) / goal.square().sum(-1).clamp(min=1e-30)
    return squares.mean() if counts is None else squares[counts].mean()
