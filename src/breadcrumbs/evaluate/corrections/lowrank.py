"""Representation Surgery: a small bottleneck that takes from features what the merge put in.

    z' = z - U relu(D z),   D (rank, width), U (width, rank), no bias

Yang, Shen, Wang et al., "Representation Surgery for Multi-Task Model Merging", ICML 2024,
arXiv:2402.02705: D begins as torch.nn.Linear does (uniform in +- 1/sqrt(width)), U at 0; Adam, rate
1e-3, mean of |z' - e| over entries. The authors take 2 x 16 unlabelled rows of the *test* split a
step, 500 times; here each of 1000 steps takes 16 of the rows drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

if TYPE_CHECKING:
    from breadcrumbs.evaluate.corrections.seen import Seen

RANK, STEPS, BATCH, RATE = 16, 1000, 16, 1e-3


class LowRank:
    """`kinds.Kind`: 2 width rank numbers."""

    least = 1
    answers = ("expert",)

    def __init__(self, rank: int = RANK, steps: int = STEPS) -> None:
        self.rank, self.steps = rank, steps
        self.name = f"lowrank:{rank}"

    def fit(self, seen: Seen) -> dict[str, np.ndarray]:
        """Return ``down`` (rank, width) and ``up`` (width, rank), float32. Needs Torch."""
        import torch

        z, e = (torch.from_numpy(np.asarray(x, np.float32)) for x in (seen.merged, seen.expert))
        numbers = begun(f"{seen.draw.seed}\0{seen.task}", self.rank, z.shape[1])
        adam = torch.optim.Adam(list(numbers.values()), lr=RATE)
        with torch.enable_grad():
            for step in range(self.steps):
                rows = torch.from_numpy(seen.draw.batch(seen.task, step, BATCH, len(z)))
                loss = (self.features(numbers, z[rows]) - e[rows]).abs().mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
        return {name: tensor.detach().numpy() for name, tensor in numbers.items()}

    def features(self, numbers: Mapping[str, Any], features: Any) -> Any:
        """Return corrected features (rows, width)."""
        return features - (features @ numbers["down"].T).clip(min=0) @ numbers["up"].T

    def head(self, numbers: Mapping[str, Any], head: Any) -> Any:
        """Return the head as it is."""
        return head


def begun(salt: str, rank: int, width: int, where: Any = "cpu") -> dict[str, Any]:
    """Return ``down`` and ``up`` as they begin, tensors that take gradients. salt: of the draw."""
    import torch

    data = blake3(salt.encode("utf-8", "surrogatepass")).digest(16)
    rng = np.random.default_rng(int.from_bytes(data, "little"))
    bound = width**-0.5
    down = rng.uniform(-bound, bound, (rank, width)).astype(np.float32)
    numbers = {"down": torch.from_numpy(down), "up": torch.zeros(width, rank)}
    return {name: tensor.to(where).requires_grad_(True) for name, tensor in numbers.items()}
