"""What the harness asks of a kind of model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from breadcrumbs.evaluate.data.task import Rows, Split, Task

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """What a model takes in at once. inputs: tensors by name. rows: the numbers of the rows in it.

    labels: their classes, (n,) int64.
    """

    inputs: Mapping[str, Any]
    rows: np.ndarray
    labels: Any


@runtime_checkable
class Answering(Protocol):
    """What a foundation has besides that answers some tasks otherwise than by logits."""

    def answers(self, task: Task) -> bool:
        """Whether a task is one of those; of these no logits are asked for."""
        ...

    def hits(self, module: torch.nn.Module, task: Task, split: Split, size: int) -> np.ndarray:
        """Return which rows of a split are answered right, (n,) bool, asked ``size`` at once."""
        ...


@runtime_checkable
class Featured(Protocol):
    """What a foundation has besides, whose logits are those of a head on features of the row.

    ``logits(module, head, batch)`` is ``answer(head, features(module, batch))``, bit for bit.
    Corrections behind a frozen encoder are learned on features, and go in between.
    """

    def features(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Return (rows of the batch, width), float32, in which no head has a part."""
        ...

    def answer(self, head: Any, features: torch.Tensor) -> torch.Tensor:
        """Return (rows, classes), as `Foundation.logits` does."""
        ...


class Foundation(Protocol):
    """A kind of model: how to load it, ask it and train it.

    kind: its name. settings: what was declared of it, which results depend on; plain data. It may
    have ``models``, paths of what it loads besides the base: results depend on these too.
    It may remember what belongs to the base that was loaded last, such as its tokenizer, so `load`
    comes first.
    """

    kind: str
    settings: Mapping[str, Any]
    #: Whether heads are made of training rows, or of names of classes alone.
    trains_heads: bool

    def load(self, base: str) -> torch.nn.Module:
        """Return the base's module with its weights, not training; in float32, but for language
        models, which keep the base's dtype unless float32 is asked for."""
        ...

    def prepare(self, task: Task, rows: Rows, size: int) -> Sequence[Batch]:
        """Return batches of up to ``size`` rows, which depend on no weight (tokens, pixels).

        Rows of like length lie together, so that little is padded.
        """
        ...

    def head(self, module: torch.nn.Module, task: Task) -> Any:
        """Return the frozen head of a task, made of the base's module: tensors, by name.

        Reads training rows at most. Heads are never merged.
        """
        ...

    def logits(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        """Return (rows of the batch, classes): the largest is what the model answers."""
        ...

    def loss(self, module: torch.nn.Module, head: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a batch, for fine-tuning."""
        ...


def on(value: Any, where: torch.device) -> Any:
    """Return tensors, in batches and mappings too, on the device."""
    if isinstance(value, Batch):
        return Batch(on(value.inputs, where), value.rows, on(value.labels, where))
    if isinstance(value, Mapping):
        return {name: on(one, where) for name, one in value.items()}
    return value.to(where) if hasattr(value, "to") else value
