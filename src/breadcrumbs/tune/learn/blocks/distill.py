"""Distillation, a block at a time: its own weights are trained to give what the experts' give.

    W_b = argmin  mean over tasks t, places p of  |B(x_tp; W) - y_tp|^2 / |y_tp|^2
    y_tp = B(e_tp; W_t)

x: what the blocks learned so far make of the rows; e: what the expert's make of them. The squared
error of ProDistill (Xu et al., "Scalable Model Merging with Progressive Layer-wise Distillation",
ICML 2025, arXiv:2502.12706), there summed over places, of which a few large ones outweigh all
others in language models; and there a coefficient for each entry of each model is learned, here the
weights themselves, with 1/T of the memory.

Adam, from the start's weights. The rate of a tensor is ``rate`` times the mean length (root mean
square) of the experts' entries in it, task vectors that is, and falls to 0 along a cosine. What no
expert has changed stays as it is. Where a block is no nearer afterwards, it stays too.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from breadcrumbs.modules.precise import short_attention
from breadcrumbs.tune.learn.blocks.block import distance

if TYPE_CHECKING:
    from breadcrumbs.tune.learn.blocks.block import Block, Weights

RATE, STEPS = 0.5, 300


class Distill:
    """`kinds.Kind`. rate: see above. steps: of a block, a batch of each task each."""

    name, follows, keeps = "distill", True, True

    def __init__(self, rate: float = RATE, steps: int = STEPS) -> None:
        self.rate, self.steps = rate, steps
        self._squares: dict[str, float] = {}

    @property
    def settings(self) -> dict[str, float]:
        """What it depends on."""
        return {"rate": self.rate, "steps": self.steps}

    def begin(self, block: Block) -> None:
        """Forget the block before."""
        self._squares = dict.fromkeys(block.start, 0.0)

    def expert(self, block: Block, task: str, weights: Weights) -> AbstractContextManager[None]:
        """Add how far an expert's weights are from the base's."""
        for name, base in block.base.items():
            if base.is_floating_point():
                self._squares[name] += float((weights[name] - base).double().square().mean())
        return nullcontext()

    def fit(self, block: Block) -> Weights:
        """Return the weights of the block; the start's themselves where nothing is trained."""
        import torch

        tuned = {n: t.clone() for n, t in block.start.items() if self._squares[n]}
        if not tuned or not self.steps:
            return block.start
        places = block.place({**block.start, **tuned})
        groups = []
        for name in tuned:
            places[name].requires_grad_(True)
            size = math.sqrt(self._squares[name] / len(block.tasks))
            top = self.rate * size
            groups.append({"params": [places[name]], "lr": top, "top": top})
        adam = torch.optim.Adam(groups)
        for step in range(self.steps):
            for group in adam.param_groups:
                group["lr"] = group["top"] * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))
            with torch.enable_grad(), short_attention(block.device):
                for task in block.tasks:
                    batch = block.batch(task, step)
                    loss = distance(block.through(task, batch), *block.goal(task, batch))
                    (loss / len(block.tasks)).backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
        return {n: places[n].detach().clone() for n in block.start}
