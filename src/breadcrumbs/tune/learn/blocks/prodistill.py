"""ProDistill: a coefficient for each entry of each task vector, learned a block at a time.

    W_b = W0 + sum_t a_t * (W_t - W0),   a_t of the shape of W
    min over a  sum over tasks t, places p of  |B(x_tp; W_b) - B(e_tp; W_t)|^2

Xu et al., "Scalable Model Merging with Progressive Layer-wise Distillation", ICML 2025,
arXiv:2502.12706. x and e as of `distill`; Adam at one rate, from a_t = ``alpha``. The authors take
64 rows of the training split, rates of 0.01 to 0.1, and task arithmetic at 0.3 for what lies
outside of blocks, which is the start's here. A block of each model is in memory at once. The
weights are what is written, since coefficients would be as large as all experts.

The gradient of a_t is that of W_b times the task vector.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from breadcrumbs.modules.precise import short_attention

if TYPE_CHECKING:
    import torch

    from breadcrumbs.tune.learn.blocks.block import Block, Weights

RATE, STEPS, ALPHA = 0.1, 300, 0.3


class ProDistill:
    """`kinds.Kind`. rate: of coefficients. steps: of a block, a batch of each task each."""

    name, follows, keeps = "prodistill", True, False

    def __init__(self, rate: float = RATE, steps: int = STEPS, alpha: float = ALPHA) -> None:
        self.rate, self.steps, self.alpha = rate, steps, alpha
        self._taus: dict[str, list[torch.Tensor]] = {}

    @property
    def settings(self) -> dict[str, float]:
        """What it depends on."""
        return {"rate": self.rate, "steps": self.steps, "alpha": self.alpha}

    def begin(self, block: Block) -> None:
        """Forget the block before."""
        self._taus = {name: [] for name, t in block.base.items() if t.is_floating_point()}

    def expert(self, block: Block, task: str, weights: Weights) -> AbstractContextManager[None]:
        """Keep the task vector of the block."""
        for name, taus in self._taus.items():
            taus.append((weights[name] - block.base[name]).to(block.device))
        return nullcontext()

    def fit(self, block: Block) -> Weights:
        """Return the weights of the block."""
        import torch

        alphas = {
            name: [torch.full_like(tau, self.alpha) for tau in taus]
            for name, taus in self._taus.items()
        }
        adam = torch.optim.Adam([a for own in alphas.values() for a in own], lr=self.rate)
        places = block.place({**block.start, **self._sums(block, alphas)})
        for name in alphas:
            places[name].requires_grad_(True)
        for step in range(self.steps):
            with torch.enable_grad(), short_attention(block.device):
                for task in block.tasks:
                    batch = block.batch(task, step)
                    goal, counts = block.goal(task, batch)
                    squares = (block.through(task, batch) - goal).square().mean(-1)
                    (squares if counts is None else squares[counts]).mean().backward()
            for name, own in alphas.items():
                gradient = places[name].grad
                for alpha, tau in zip(own, self._taus[name], strict=True):
                    alpha.grad = None if gradient is None else gradient * tau
            adam.step()
            for name, value in self._sums(block, alphas).items():
                places[name].grad = None
                places[name].data = value
        return {**block.start, **{name: places[name].detach().clone() for name in alphas}}

    def _sums(self, block: Block, alphas: dict[str, list[torch.Tensor]]) -> Weights:
        found = {}
        for name, own in alphas.items():
            total = block.base[name].to(block.device).clone()
            for alpha, tau in zip(own, self._taus[name], strict=True):
                total.addcmul_(alpha, tau)
            found[name] = total
        return found
