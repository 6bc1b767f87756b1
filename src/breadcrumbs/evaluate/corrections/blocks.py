"""SurgeryV2, greedy: a small bottleneck after every block, and one behind the features.

    x_b <- x_b - U_b relu(D_b x_b)   at every place, after block b;   z' = z - U relu(D z)

Yang, Shen, Wang et al., "SurgeryV2: Bridging the Gap Between Model Merging and Multi-Task Learning
with Deep Representation Surgery", 2024, arXiv:2410.14389. Loss and start as in `lowrank`; after a
block it is of the means over places. The authors train all at once, through all later blocks, on
rows of the test split; here one is fitted after the other, each on what the corrected blocks before
give, so that one block of each model is in memory. 2 width rank numbers a block, and as many more.

A task then has an encoder pass of its own: what is corrected inside serves no other task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.evaluate.corrections.lowrank import RANK, RATE, STEPS, LowRank, begun

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.corrections.seen import Seen


class Blocks:
    """`kinds.Kind` that is inside: features are computed `within` it."""

    least = 1
    answers = ("expert",)

    def __init__(self, rank: int = RANK, steps: int = STEPS) -> None:
        self.rank, self.steps = rank, steps
        self.name = f"blocks:{rank}"

    def fit(self, seen: Seen) -> dict[str, np.ndarray]:
        """Return ``down`` and ``up``, of features that blocks have corrected."""
        return LowRank(self.rank, self.steps).fit(seen)

    def fit_block(
        self,
        salt: str,
        hidden: Sequence[torch.Tensor],
        goals: Sequence[torch.Tensor],
        counts: Sequence[torch.Tensor | None],
        turn: Callable[[int], int],
    ) -> dict[str, np.ndarray]:
        """Return ``down`` and ``up`` of one block.

        salt: what the start depends on. hidden, goals: what the block gives and the expert's, by
        batches. counts: which places are no padding. turn: which batch a step takes.
        """
        import torch

        where = hidden[0].device
        numbers = begun(salt, self.rank, hidden[0].shape[-1], where)
        means = [mean(goal, count) for goal, count in zip(goals, counts, strict=True)]
        adam = torch.optim.Adam(list(numbers.values()), lr=RATE)
        with torch.enable_grad():
            for step in range(self.steps):
                at = turn(step)
                out = mean(corrected(hidden[at], numbers["down"], numbers["up"]), counts[at])
                loss = (out - means[at]).abs().mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
        return {name: tensor.detach().cpu().numpy() for name, tensor in numbers.items()}

    def features(self, numbers: Mapping[str, Any], features: Any) -> Any:
        """Return corrected features (rows, width)."""
        return LowRank(self.rank).features(numbers, features)

    def head(self, numbers: Mapping[str, Any], head: Any) -> Any:
        """Return the head as it is."""
        return head


@contextmanager
def within(blocks: Sequence[torch.nn.Module], numbers: Mapping[str, Any]) -> Iterator[None]:
    """Let blocks give what is corrected. numbers: of a task, on their device."""
    import torch

    def hook(number: int) -> Callable[..., Any]:
        down, up = numbers[f"{number}.down"], numbers[f"{number}.up"]

        def correct(_block: Any, _args: Any, out: Any) -> Any:
            x = out if torch.is_tensor(out) else out[0]
            with torch.autocast(x.device.type, enabled=False):
                better = corrected(x.float(), down, up).to(x.dtype)
            return better if torch.is_tensor(out) else type(out)((better, *out[1:]))

        return correct

    hooks = [block.register_forward_hook(hook(number)) for number, block in enumerate(blocks)]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def corrected(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return x (..., width) without what the bottleneck takes from it."""
    return x - (x @ down.T).clip(min=0) @ up.T


def mean(x: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    """Return the means (rows, width) of x (rows, ..., width) over the places that count."""
    if x.ndim == 2:
        return x
    if counts is None:
        return x.flatten(1, -2).mean(1)
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    return (x * share[..., None]).sum(1)
