"""The weights of a live module that tasks change, and changing them in place.

Where a task's weights are either the base's or one vector's, or the base's but for some entries,
what is kept is the exclusive or of their bits: applied once, it puts the task in, applied again, it
gives the base back, every bit of it, and nothing else is needed for that. Other weights are read
again from the files.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.modules.slots import as_torch
from breadcrumbs.taskfile.view import KeptBytes

if TYPE_CHECKING:
    import torch

#: Weights that are changed at once.
PIECE = 1 << 22
#: As `PIECE`, on other devices, where masks are spread out.
SPREAD = 1 << 24


class Place(Protocol):
    """Some weights. task: what they are those of, None for the base."""

    task: str | None

    def to(self, task: str | None) -> None:
        """Make the weights those of a task."""
        ...


class Masked:
    """Weights of which each task takes some from one vector: TALL masks.

    weights: of the module, flat, in place, as integers. flips: the exclusive or of the base and the
    vector. masks: packed, of the tasks that change any.
    """

    def __init__(self, weights: Any, flips: Any, masks: Mapping[str, Any]):
        self.weights, self.flips, self.masks = weights, flips, masks
        self.task: str | None = None

    def to(self, task: str | None) -> None:
        if task == self.task:
            return
        old, new = (self.masks.get(name) if name else None for name in (self.task, task))
        packed = new if old is None else old if new is None else old ^ new
        if packed is not None:
            flip_masked(self.weights, self.flips, packed)
        self.task = task


class Scattered:
    """Weights of which each task changes a few.

    changes: by task, their places and the exclusive or with the base.
    """

    def __init__(self, weights: Any, changes: Mapping[str, tuple[Any, Any]]):
        self.weights, self.changes = weights, changes
        self.task: str | None = None

    def to(self, task: str | None) -> None:
        if self.task not in (None, task):
            self._flip(self.task)
            self.task = None
        if self.task != task:
            self._flip(task)
            self.task = task

    def _flip(self, task: str | None) -> None:
        if task is not None and task in self.changes:
            flip_at(self.weights, *self.changes[task])


class Read:
    """Weights that are read from files each time. tensors: by task, where it is not the base's."""

    def __init__(self, weights: torch.Tensor, base: Tensor, tensors: Mapping[str, Tensor]):
        self.weights, self.base, self.tensors = weights, base, tensors
        self.task: str | None = None

    def to(self, task: str | None) -> None:
        import torch

        new = self.tensors.get(task, self.base) if task else self.base
        old = self.tensors.get(self.task, self.base) if self.task else self.base
        if new is not old:
            with torch.no_grad():
                self.weights.copy_(as_torch(new.read()))
        self.task = task


def masked(
    weights: torch.Tensor, value: Tensor, masks: Mapping[str, np.ndarray], piece: int = PIECE
) -> list[Masked]:
    """Return the places of a tensor, which holds the base. masks: packed, by task.

    piece: weights that are changed at once; a multiple of 8.
    """
    result = []
    flat = bits(weights)
    for start in range(0, value.size, piece):
        mine = flat[start : start + piece]
        part = np.empty(mine.shape[0], DTYPES[value.dtype])
        value.read_into(start, part)
        flips = mine ^ like(mine, part, weights)
        packed = {
            task: on_device(mask[start // 8 : (start + piece) // 8], weights)
            for task, mask in masks.items()
        }
        result.append(Masked(mine, flips, packed))
    return result


def scattered(weights: torch.Tensor, tensors: Mapping[str, Tensor]) -> Scattered:
    """Return the place of a tensor, which holds the base. tensors: views of task files."""
    flat = bits(weights)
    width = np.uint32 if weights.numel() < 1 << 32 and is_array(flat) else np.int64
    changes = {}
    for task, tensor in tensors.items():
        source = tensor.source
        assert isinstance(source, KeptBytes)
        at, values = [], []
        for block in range(-(-tensor.size // BLOCK)):
            kept = source.kept(block)
            at.append(kept.positions.astype(width) + width(block * BLOCK))
            values.append(kept.values)
        where = on_device(np.concatenate(at), weights)
        changes[task] = where, flat[where] ^ like(flat, np.concatenate(values), weights)
    return Scattered(flat, changes)


def is_array(values: Any) -> bool:
    """Whether weights lie in this machine's memory; else they are Torch tensors."""
    return isinstance(values, np.ndarray)


def bits(weights: torch.Tensor) -> Any:
    """Return a tensor's memory, flat, as integers: an array on the CPU, else a Torch tensor."""
    import torch

    size = weights.element_size()
    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    flat = weights.detach().view(-1).view(signed)
    return flat.numpy().view(f"u{size}") if weights.device.type == "cpu" else flat


def like(mine: Any, values: np.ndarray, weights: torch.Tensor) -> Any:
    """Return values in the dtype of the module's weights, as `bits` has those."""
    found = as_torch(values).to(weights.device, weights.dtype)
    return bits(found) if is_array(mine) else found.view(mine.dtype)


def on_device(array: np.ndarray, weights: torch.Tensor) -> Any:
    """Return an array where the weights are."""
    if weights.device.type == "cpu":
        return np.ascontiguousarray(array)
    return as_torch(array).to(weights.device)


def flip_masked(weights: Any, flips: Any, packed: Any, spread: int = SPREAD) -> None:
    """Flip the weights whose bit is set. spread: those whose bits are spread out at once."""
    if is_array(weights):
        kernels().flip_masked(weights, flips, packed)
        return
    import torch

    shifts = torch.arange(7, -1, -1, device=packed.device, dtype=torch.uint8)
    for start in range(0, weights.numel(), spread):
        mine = weights[start : start + spread]
        ones = packed[start // 8 : (start + spread) // 8, None] >> shifts & 1
        held = -ones.view(-1)[: mine.numel()].to(mine.dtype)  # all ones, or all zeros
        mine ^= held & flips[start : start + spread]


def flip_at(weights: Any, places: Any, flips: Any) -> None:
    """Flip the weights at some places."""
    if is_array(weights):
        kernels().flip_at(weights, places, flips)
    else:
        weights[places] ^= flips


@functools.cache
def kernels() -> Any:
    """Return the kernels. Finding them takes longer than what they do."""
    from breadcrumbs.kernels import flips

    return flips()
