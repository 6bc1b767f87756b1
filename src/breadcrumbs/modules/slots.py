"""Which tensor of a checkpoint goes into which weight of a Torch module, and putting it there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from blake3 import blake3

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import MismatchError, listing

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, tuple[int, ...]]

#: NumPy's dtypes of its own making, and what Torch reads their bytes as.
_VIEWS = {
    np.dtype(ml_dtypes.bfloat16): (np.int16, "bfloat16"),
    np.dtype(ml_dtypes.float8_e4m3fn): (np.uint8, "float8_e4m3fn"),
    np.dtype(ml_dtypes.float8_e5m2): (np.uint8, "float8_e5m2"),
}


@dataclass(frozen=True)
class Slot:
    """One weight of the module. tensor: its parameter or buffer. names: the module's, several if
    it is tied. required: whether every state has to have it.
    """

    tensor: torch.Tensor
    names: tuple[str, ...]
    required: bool


class Slots:
    """The weights of a module that holds those of a base, by the names of the base's checkpoint.

    module: as its foundation loaded it. base: the tensors that it was loaded from.

    Names are matched as they are, then without (or with) a prefix that most of them have, then by
    values, so that it does not matter what a library renames on loading. A parameter that the base
    has no tensor for must be frozen by whoever loads it (``requires_grad_(False)``): a text tower
    from elsewhere, a pooler that is not used. MismatchError, which lists them, for others, and for
    weights that are not the base's, bit for bit, in the module's dtype.
    whole: whether the base must have all that is trained; else the module may have more, as heads.
    """

    def __init__(self, module: torch.nn.Module, base: Mapping[str, np.ndarray], whole: bool = True):
        self.label = getattr(base, "label", "base")
        #: Slots by the names of the checkpoint; a tied weight may have several.
        self.names: dict[str, Slot] = {}
        self._all = _slots(module)
        self._match(_shapes(base), base, whole)
        self._dtypes = {name: _dtype(base, name) for name in self.names}
        self._unused = {name: _digest(base[name]) for name in base if name not in self.names}
        self._kept: dict[int, torch.Tensor] = {}

    def put(self, state: Mapping[str, np.ndarray]) -> None:
        """Copy the weights of ``state`` into the module, in place.

        state: names as in the base's checkpoint, float weights of any float dtype. Frozen weights
        may be left out, and are the base's then. MismatchError, with nothing copied, that lists
        tensors that are missing, unexpected, or of another shape or kind; tensors that the module
        has no place for must be the base's.
        """
        import torch

        given = self._check(state)
        with torch.no_grad():
            for slot in self._all:
                name = given.get(id(slot))
                kept = self._kept.get(id(slot))
                if name is not None:
                    value = as_torch(state[name])
                    if not slot.required and kept is None:
                        if _same(slot.tensor, value):
                            continue
                        self._kept[id(slot)] = slot.tensor.detach().clone()
                    slot.tensor.copy_(value)
                elif kept is not None:
                    slot.tensor.copy_(kept)

    def filled(self, state: Mapping[str, np.ndarray]) -> list[tuple[Slot, str]]:
        """Return the weights of the module that ``state`` has, each with its name there.

        Nothing is copied. MismatchError as of `put`.
        """
        given = self._check(state)
        return [(slot, given[id(slot)]) for slot in self._all if id(slot) in given]

    def slot(self, name: str) -> Slot | None:
        """Return the weight of the module that a tensor of that name goes to."""
        return self.names.get(name) or self._renamed(name)

    def take(self) -> dict[str, np.ndarray]:
        """Return copies of the module's weights, with the names and dtypes of the checkpoint."""
        tensors = {
            name: slot.tensor.detach().to(as_torch(np.empty(0, self._dtypes[name])).dtype)
            for name, slot in self.names.items()
        }
        return dict(checkpoint.open(tensors))

    def _match(self, shapes: Shapes, base: Mapping[str, np.ndarray], whole: bool) -> None:
        """Fill ``names``; MismatchError unless they hold the base, and all that is trained."""
        by_name = {name: slot for slot in self._all for name in slot.names}
        self._strip, self._add = _prefix(
            {name: tuple(slot.tensor.shape) for name, slot in by_name.items()}, shapes
        )
        self._by_name = by_name
        wrong = []
        for name, shape in shapes.items():
            slot = self._renamed(name)
            if slot is not None and tuple(slot.tensor.shape) == shape:
                self.names[name] = slot
                if not _same(slot.tensor, as_torch(base[name])):
                    wrong.append(name)
        self.names |= self._by_values([name for name in shapes if name not in self.names], base)
        if wrong:
            raise MismatchError(
                f"{self.label}: once loaded, the module holds other values than the checkpoint in"
                f" {listing(wrong)}. What loads it must keep the base's weights as they are."
            )
        held = {id(slot) for slot in self.names.values()}
        lost = [s.names[0] for s in self._all if id(s) not in held and _is_trained(s.tensor)]
        if lost and whole:
            spare = [name for name in shapes if name not in self.names]
            also = f" It has {listing(spare)}, which go nowhere." if spare else ""
            raise MismatchError(
                f"{self.label}: has no tensors for {listing(lost)} of the module.{also} Give the"
                " checkpoint that the module was loaded from, or freeze what it does not hold."
            )

    def _renamed(self, name: str) -> Slot | None:
        """Return the slot of a name of a checkpoint, if its name tells."""
        if name.startswith(self._strip):
            slot = self._by_name.get(self._add + name[len(self._strip) :])
            if slot is not None:
                return slot
        return self._by_name.get(name)

    def _by_values(self, names: Sequence[str], base: Mapping[str, np.ndarray]) -> dict[str, Slot]:
        """Return slots for those ``names`` whose values one free slot alone has."""
        held = {id(slot) for slot in self.names.values()}
        free = [slot for slot in self._all if id(slot) not in held]
        if not free:
            return {}
        found: dict[str, list[Slot]] = {}
        for name in names:
            value = as_torch(base[name])
            alike = (s for s in free if s.tensor.shape == value.shape)
            found[name] = [s for s in alike if _same(s.tensor, value)]
        times = Counter(id(slot) for slots in found.values() for slot in slots)
        return {
            name: slots[0]
            for name, slots in found.items()
            if len(slots) == 1 and times[id(slots[0])] == 1
        }

    def _check(self, state: Mapping[str, np.ndarray]) -> dict[int, str]:
        """Return which name of ``state`` fills each slot, by its id; raise if it does not fit."""
        label = getattr(state, "label", "state")
        given: dict[int, str] = {}
        unexpected, changed, wrong, untied = [], [], [], []
        for name, shape in _shapes(state).items():
            slot = self.slot(name)
            if name in self._unused:
                changed += [name] if _digest(state[name]) != self._unused[name] else []
            elif slot is None:
                unexpected.append(name)
            elif problem := _problem(slot.tensor, shape, _dtype(state, name)):
                wrong.append(f"{name!r} {problem}")
                given.setdefault(id(slot), name)
            elif id(slot) not in given:
                given[id(slot)] = name
            elif not _same(as_torch(state[given[id(slot)]]), as_torch(state[name])):
                untied.append(f"{given[id(slot)]} = {name}")
        missing = [
            name for name, slot in self.names.items() if slot.required and id(slot) not in given
        ]
        faults = [
            f"missing: {listing(missing)}" if missing else "",
            f"unexpected: {listing(unexpected)}" if unexpected else "",
            f"of another kind: {', '.join(wrong[:5])}" if wrong else "",
            f"one weight in the module, but not here: {listing(untied)}" if untied else "",
            f"changed, but not used by the module: {listing(changed)}" if changed else "",
        ]
        if any(faults):
            raise MismatchError(
                f"{label}: does not fit {self.label}: {'; '.join(filter(None, faults))}. Give a"
                " fine-tuning or a merge of that base."
            )
        return given


def as_torch(array: np.ndarray) -> torch.Tensor:
    """Return an array as a Torch tensor, on the same memory where Torch can use it."""
    import torch

    array = np.asarray(array)  # of no dimension, arithmetic makes them scalars
    if not (array.flags.writeable and array.flags.c_contiguous):
        array = array.copy(order="C")
    if array.dtype in _VIEWS:
        through, name = _VIEWS[array.dtype]
        return torch.from_numpy(array.view(through)).view(getattr(torch, name))
    return torch.from_numpy(array)


def _slots(module: torch.nn.Module) -> list[Slot]:
    """Return the weights that a module saves, each once."""
    import torch

    names: dict[int, list[str]] = {}
    tensors: dict[int, Any] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if torch.is_tensor(tensor):
            names.setdefault(id(tensor), []).append(name)
            tensors[id(tensor)] = tensor
    buffers = {id(buffer) for buffer in module.buffers()}
    return [
        Slot(tensors[key], tuple(known), key in buffers or _is_trained(tensors[key]))
        for key, known in names.items()
    ]


def _is_trained(tensor: torch.Tensor) -> bool:
    return tensor.requires_grad


def _prefix(module: Shapes, base: Shapes) -> tuple[str, str]:
    """Return what to strip from the checkpoint's names, and what to add, to match most of them."""
    found: Counter[tuple[str, str]] = Counter({("", ""): 0})
    for name, shape in base.items():
        for prefix, rest in _splits(name):
            found[prefix, ""] += module.get(rest) == shape
    for name, shape in module.items():
        for prefix, rest in _splits(name):
            if prefix:
                found["", prefix] += base.get(rest) == shape
    return max(found, key=lambda rule: (found[rule], -len(rule[0]) - len(rule[1])))


def _splits(name: str) -> Iterable[tuple[str, str]]:
    """Yield a dotted name in two, at its beginning and after each dot."""
    yield "", name
    for place, letter in enumerate(name):
        if letter == ".":
            yield name[: place + 1], name[place + 1 :]


def _shapes(state: Mapping[str, np.ndarray]) -> Shapes:
    if isinstance(state, checkpoint.Checkpoint):  # headers alone
        return {name: tensor.shape for name, tensor in state.tensors.items()}
    return {name: tuple(array.shape) for name, array in state.items()}


def _dtype(state: Mapping[str, np.ndarray], name: str) -> np.dtype:
    if isinstance(state, checkpoint.Checkpoint):
        return DTYPES[state.tensors[name].dtype]
    return state[name].dtype


def _problem(slot: torch.Tensor, shape: tuple[int, ...], dtype: np.dtype) -> str:
    """Return why a tensor cannot go into a slot, or nothing."""
    if shape != tuple(slot.shape):
        return f"has shape {shape}, not {tuple(slot.shape)}"
    is_float = dtype in _VIEWS or dtype.kind == "f"
    if is_float != slot.is_floating_point():
        return f"is {dtype}, not {str(slot.dtype).removeprefix('torch.')}"
    return ""


def _same(slot: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether ``value``, in the slot's dtype, has the slot's bits."""
    import torch

    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[slot.element_size()]
    value = value.to(slot.device, slot.dtype)
    return torch.equal(slot.detach().view(bits), value.view(bits))


def _digest(array: np.ndarray) -> tuple[Any, ...]:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return array.shape, array.dtype, blake3(flat.data).digest()
