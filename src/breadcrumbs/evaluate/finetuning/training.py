"""Fine-tune a model on one task: batches, steps, and what is saved of them in between.

All that is random depends on the seed, the task, and the epoch, window or step alone. So a training
that goes on from a saved state gives the bits of one that was never interrupted (on the CPU, in one
thread; a GPU adds up in any order).

The module is not put into training mode: nothing is dropped out, and the statistics of batch
normalisation stay the base's. What is frozen of a model is then frozen, and what is measured before
and after is what is trained.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import SuiteError, TrainingError
from breadcrumbs.evaluate.data.task import Rows, Task
from breadcrumbs.evaluate.foundations.foundation import Batch, Foundation, on
from breadcrumbs.modules.precise import precise, short_attention

if TYPE_CHECKING:
    import torch

#: Batches among which rows of like length are put together.
WINDOW = 16
#: The largest norm of a step's gradient.
CLIP = 1.0
SCHEDULES = ("cosine", "linear")


@dataclass(frozen=True)
class Settings:
    """How to fine-tune.

    epochs: passes over the rows. rate: the largest learning rate. batch: rows of a step. decay: of
    weights that are no vectors. warmup: fraction of the training in which the rate rises from 0;
    then it falls to 0 by the schedule. freeze: globs of tensor names of the checkpoint. rows:
    training rows at most, drawn by the seed. precision: ``float32`` or ``bfloat16`` for products;
    weights and steps are float32. lora: the rank of an adapter, which is trained instead.
    """

    epochs: int = 3
    rate: float = 1e-4
    batch: int = 32
    decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "cosine"
    freeze: tuple[str, ...] = ()
    rows: int | None = None
    precision: str = "auto"
    lora: int | None = None

    def __post_init__(self) -> None:
        fits = {
            "epochs": self.epochs >= 1,
            "rate": 0 < self.rate < math.inf,
            "batch": self.batch >= 1,
            "decay": 0 <= self.decay < math.inf,
            "warmup": 0 <= self.warmup < 1,
            "schedule": self.schedule in SCHEDULES,
            "rows": self.rows is None or self.rows >= 1,
            "lora": self.lora is None or self.lora >= 1,
        }
        for name, good in fits.items():
            if not good:
                raise SuiteError(
                    f"finetune: {name} {getattr(self, name)!r} is not possible. {_RANGES[name]}"
                )


_RANGES = {
    "epochs": "Give a whole number of 1 or more.",
    "rate": "Give a learning rate above 0, such as 1e-4.",
    "batch": "Give a whole number of 1 or more.",
    "decay": "Give a number of 0 or more, such as 0.01.",
    "warmup": "Give a fraction below 1, such as 0.1.",
    "schedule": f"Give one of {', '.join(SCHEDULES)}.",
    "rows": "Give a whole number of 1 or more.",
    "lora": "Give a rank of 1 or more, such as 16.",
}


class Place(NamedTuple):
    """Where a training is: the batch that comes next."""

    epoch: int = 0
    window: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Step:
    """What is told of a step. rows: trained on so far, of ``total``. loss: the mean of the last
    fifty. speed: rows per second."""

    epoch: int
    rows: int
    total: int
    loss: float
    speed: float


class Training:
    """The fine-tuning of one module on one task.

    weights: the parameters to train, in a fixed order; the rest of the module is frozen by the
    caller. head: made of the base. rows: training rows.
    """

    def __init__(
        self,
        foundation: Foundation,
        module: torch.nn.Module,
        weights: Sequence[torch.nn.Parameter],
        head: Any,
        task: Task,
        rows: Rows,
        settings: Settings,
        seed: int,
    ):
        import torch

        self.foundation, self.module, self.head = foundation, module, head
        self.task, self.settings, self.seed = task, settings, seed
        self.rows, self.total = rows, settings.epochs * len(rows)
        self.weights = list(weights)
        self.device = self.weights[0].device
        matrices = [weight for weight in self.weights if weight.ndim > 1]
        vectors = [weight for weight in self.weights if weight.ndim < 2]
        groups = [(matrices, settings.decay), (vectors, 0.0)]
        self.optimizer = torch.optim.AdamW(
            [{"params": params, "weight_decay": decay} for params, decay in groups if params],
            lr=settings.rate,
            fused=True,
        )
        self.place, self.step, self.done = Place(), 0, 0

    def trained(self) -> set[int]:
        """Return the ids of the weights that a step has changed: those that had a gradient."""
        return {id(weight) for weight in self.optimizer.state}

    def state(self) -> dict[str, Any]:
        """Return all that going on depends on."""
        return {
            "place": tuple(self.place),
            "step": self.step,
            "done": self.done,
            "weights": [weight.detach() for weight in self.weights],
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to a state."""
        import torch

        self.place, self.step, self.done = Place(*state["place"]), state["step"], state["done"]
        with torch.no_grad():
            for weight, value in zip(self.weights, state["weights"], strict=True):
                weight.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])

    def run(self, tell: Callable[[Step], None]) -> None:
        """Train to the end, and tell of each step when it is done; TrainingError."""
        losses: deque[float] = deque(maxlen=50)
        began, before = time.perf_counter(), self.done
        for place, batch in self._batches(self.place):
            losses.append(self._step(batch))
            self.place, self.step, self.done = place, self.step + 1, self.done + len(batch.rows)
            speed = (self.done - before) / (time.perf_counter() - began)
            tell(Step(place.epoch, self.done, self.total, float(np.mean(losses)), speed))

    def _batches(self, start: Place) -> Iterator[tuple[Place, Batch]]:
        """Yield the batches from ``start`` on, each with the place of the one after it."""
        size = self.settings.batch * WINDOW
        for epoch in range(start.epoch, self.settings.epochs):
            order = self._draws("order", epoch).permutation(len(self.rows))
            first = start.window if epoch == start.epoch else 0
            for window in range(first, math.ceil(len(order) / size)):
                rows = _picked(self.rows, order[window * size : (window + 1) * size])
                self._seed("rows", epoch, window)
                made = self.foundation.prepare(self.task, rows, self.settings.batch)
                turns = self._draws("batches", epoch, window).permutation(len(made))
                here = (epoch, window) == (start.epoch, start.window)
                for turn in range(start.batch if here else 0, len(made)):
                    yield Place(epoch, window, turn + 1), made[turns[turn]]

    def _step(self, batch: Batch) -> float:
        """Train on one batch; return its loss."""
        import torch

        self._seed("step", self.step)
        share = (self.done + len(batch.rows) / 2) / self.total
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * factor(share, self.settings)
        with precise(self.settings.precision, self.device), short_attention(self.device):
            loss = self.foundation.loss(self.module, self.head, on(batch, self.device))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, CLIP, foreach=True)
        found = float(loss.detach())
        if not (math.isfinite(found) and math.isfinite(float(norm))):
            what = f"loss is {found}" if not math.isfinite(found) else f"gradient is {float(norm)}"
            raise TrainingError(
                f"task {self.task.name!r}: at step {self.step + 1}, the {what}. Lower the rate"
                f" ({self.settings.rate:g}), make the warm-up longer ({self.settings.warmup:g}), or"
                " give --precision float32."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return found

    def _draws(self, *what: Any) -> np.random.Generator:
        return np.random.default_rng(key(self.seed, self.task.name, *what))

    def _seed(self, *what: Any) -> None:
        """Let whatever the foundation draws depend on the seed, the task and ``what`` alone."""
        import torch

        torch.manual_seed(key(self.seed, self.task.name, *what))


def key(*parts: Any) -> int:
    """Return a number of 63 bits that depends on all parts."""
    digest = blake3(json.dumps(parts).encode()).digest(length=8)
    return int.from_bytes(digest, "little") >> 1


def drawn(rows: Rows, most: int | None, seed: int, task: str) -> Rows:
    """Return ``most`` of the rows, drawn by the seed; all of them where there are no more."""
    if most is None or most >= len(rows):
        return rows
    order = np.random.default_rng(key(seed, task, "rows")).permutation(len(rows))
    return _picked(rows, np.sort(order[:most]))


def factor(share: float, settings: Settings) -> float:
    """Return what the learning rate is multiplied by when ``share`` of the training is done."""
    if share < settings.warmup:
        return share / settings.warmup
    left = (1 - share) / (1 - settings.warmup)
    return left if settings.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)


class _Picked(Sequence[Any]):
    """Some of the inputs, in an order; a picture is decoded when it is asked for."""

    def __init__(self, inputs: Sequence[Any], numbers: np.ndarray):
        self._inputs, self._numbers = inputs, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Picked(self._inputs, self._numbers[place])
        return self._inputs[int(self._numbers[place])]


def _picked(rows: Rows, numbers: np.ndarray) -> Rows:
    digest = blake3(rows.digest.encode() + np.asarray(numbers, np.int64).tobytes()).hexdigest()
    return Rows(_Picked(rows.inputs, numbers), rows.labels[numbers], digest)
