"""The steps: merge, one backward pass for each task, inner products, Adam; saved in between.

AdaMerging (Yang et al., ICLR 2024, arXiv:2310.02575) learns a weight of each model, or of each
model and tensor, by the entropy of the merged model's answers. Its program: 500 steps of 2 batches
of 16 test rows a task, Adam with rate 1e-3, weights from 0.3, clamped to 0 and 1 in the forward
pass, so that one beyond has no gradient. Here weights are put back to between 1e-6 and 1 after each
step, and are learned from the rows and by the loss that are asked for.

SyMerge (arXiv:2412.19098) learns each task's head besides, by what the experts answer. Its program:
500 rounds, a step after each task's batch of 32 test rows, rate 1e-2, and the class that the expert
answers alone (``hard``). Here a step is of all tasks.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import cache as kept
from breadcrumbs.errors import TrainingError
from breadcrumbs.tune.learn.weights import family as families
from breadcrumbs.tune.learn.weights.lessons import Lesson, backward

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.scoring.scoring import Scorer
    from breadcrumbs.tune.learn.weights.family import Family
    from breadcrumbs.tune.learn.weights.kinds import Settings

#: Seconds between two states that are saved.
EVERY = 30.0


@dataclass
class Ended:
    """What steps have found. weights: (models, tensors). heads: by task, tuned tensors by name.

    losses: of each step, the sum of the tasks' means. rows: by task, how many went through.
    """

    weights: np.ndarray
    heads: dict[str, dict[str, np.ndarray]]
    losses: list[float]
    rows: dict[str, int]


class Learning:
    """Weights, and heads perhaps, on their way. key: of the state in the cache."""

    def __init__(
        self,
        family: Family,
        scorer: Scorer,
        lessons: Sequence[Lesson],
        draw: Draw,
        settings: Settings,
        cache: Path | None,
        key: str,
    ):
        import torch

        self.family, self.scorer, self.lessons, self.draw = family, scorer, lessons, draw
        self.settings, self.cache, self.key = settings, cache, key
        start = families.by_model(family)[:, None] if settings.per == "model" else family.start
        self.values = torch.from_numpy(np.clip(start, families.LEAST, None))
        self.most = torch.from_numpy(np.maximum(start, 1.0))
        self.values.requires_grad_(True)
        self.heads: dict[str, dict[str, torch.Tensor]] = {}
        if settings.heads:
            self.heads = {lesson.name: _tuned(lesson.head) for lesson in lessons}
        tuned = [tensor for head in self.heads.values() for tensor in head.values()]
        self.more = family.more()
        self.adam = torch.optim.Adam([self.values, *self.more, *tuned], lr=settings.rate)
        self.step, self.losses = 0, list[float]()

    @property
    def weights(self) -> np.ndarray:
        """The weights (models, tensors)."""
        values = self.values.detach().numpy()
        return np.ascontiguousarray(np.broadcast_to(values, self.family.start.shape))

    def run(self, tell: Callable[[int, int, str], None]) -> Ended:
        """Make all steps; TrainingError where a loss or gradient is no number."""
        self._restore()
        chosen = {id(parameter) for parameter in self.family.parameters()}
        for parameter in self.scorer.module.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
        saved, steps = time.monotonic(), self.settings.steps
        while self.step < steps:
            loss = self._one()
            self.losses.append(loss)
            self.step += 1
            tell(self.step, steps, f"loss {loss:.4f}")
            if time.monotonic() - saved > EVERY:
                self._save()
                saved = time.monotonic()
        self._save()
        heads = {
            task: {name: tensor.detach().cpu().numpy() for name, tensor in head.items()}
            for task, head in self.heads.items()
        }
        rows = {it.name: self.step * min(self.settings.batch, len(it.rows)) for it in self.lessons}
        return Ended(self.weights, heads, self.losses, rows)

    def _one(self) -> float:
        import torch

        weights, total = self.weights, 0.0
        self.family.put(weights)
        self.scorer.module.zero_grad(set_to_none=False)
        self.adam.zero_grad()
        for lesson in self.lessons:
            size = self.settings.batch
            numbers = self.draw.batch(lesson.name, self.step, size, len(lesson.rows))
            head = {**lesson.head, **self.heads[lesson.name]} if self.heads else None
            total += backward(
                self.scorer, lesson, numbers, self.settings.loss, head, self.settings.temperature
            )
        found = self.family.pull(weights)
        if self.settings.per == "model":
            found = found.sum(1, keepdims=True)
        if not (np.isfinite(total) and np.isfinite(found).all()):
            raise TrainingError(
                f"step {self.step + 1}: the loss is {total}, and a gradient may be no number. Lower"
                f" the rate ({self.settings.rate:g}), or give --precision float32."
            )
        self.values.grad = torch.from_numpy(found)
        self.adam.step()
        with torch.no_grad():
            self.values.copy_(self.values.clamp(families.LEAST).minimum(self.most))
        return total

    def _save(self) -> None:
        """Keep all that going on depends on."""
        import torch

        out = io.BytesIO()
        state = {
            "step": self.step,
            "losses": self.losses,
            "values": self.values.detach(),
            "more": [tensor.detach() for tensor in self.more],
            "heads": {t: {n: v.detach() for n, v in h.items()} for t, h in self.heads.items()},
            "adam": self.adam.state_dict(),
        }
        torch.save(state, out)
        kept.write(self.cache, "weights", self.key, out.getvalue())

    def _restore(self) -> None:
        """Go on from what an earlier run has kept."""
        import torch

        content = kept.read(self.cache, "weights", self.key)
        if content is None:
            return
        state: Mapping[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
        if state["step"] > self.settings.steps:
            return
        self.step, self.losses = state["step"], list(state["losses"])
        with torch.no_grad():
            self.values.copy_(state["values"])
            for tensor, value in zip(self.more, state["more"], strict=True):
                tensor.copy_(value)
            for task, head in self.heads.items():
                for name, tensor in head.items():
                    tensor.copy_(state["heads"][task][name])
        self.adam.load_state_dict(state["adam"])


def _tuned(head: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return copies of a head's tensors that are learned: of one dimension and more."""
    return {n: t.clone().float().requires_grad_(True) for n, t in head.items() if t.ndim}
