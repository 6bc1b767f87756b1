"""The state dict in what a training program saves: among optimizers, numbers and texts.

A mapping of names to tensors is a state dict. In a mapping of other things it is looked for under
each of the keys, and there again (``{"model": {"state_dict": ...}}``). One is taken, and a line
says under which keys; of several (a model and its moving average) none is taken unless told, since
which of them is meant cannot be seen. What training needs besides is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.patterns import Pattern
from breadcrumbs.checkpoint.tensors import shown
from breadcrumbs.errors import CheckpointError, listing, printable

#: Between a path and the keys of what is wanted in it: ``file.pt::ema``, ``file.pt::model::net``.
PICK = "::"
#: How many mappings inside each other are gone into.
DEPTH = 5

#: The last of the keys that mean the tensors of a mapping itself, not those deeper in it.
OWN = "."

#: Keys under which tensors are not weights, at any depth.
_PASSED_OVER = Pattern(
    r"optim|(^|_)opt(_|$)|sched|scaler|(^|_)amp(_|$)|(^|_)rng|random|callback|loops|hparams"
    r"|hyper_?param|(^|_)args?(_|$)|config|(^|_)cfg|metrics?(_|$)|history|(^|_)grads?(_|$)|sampler"
    r"|dataloader",
    re.IGNORECASE,
)
#: Keys of whole models: a tensor beside one, of no layer's name, is something else.
_WRAPPERS = Pattern(
    r"state_?dict|model|module|net(work)?(_|$)|weights|params|(^|_)ema(_|$)|generator|encoder"
    r"|backbone|student|teacher",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Found:
    """A state dict and the keys that lead to it. notes: for the user, if there is any to say."""

    keys: tuple[str, ...]
    tensors: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def find(content: Mapping[Any, Any], where: str, pick: tuple[str, ...] = ()) -> Found:
    """Return the state dict in what a pickle holds; CheckpointError if there is not just one.

    pick: keys that lead to it, or to a mapping in which there is just one.
    """
    own = pick[-1:] == (OWN,)
    inside = _picked(content, where, pick[:-1] if own else pick)
    if own:
        mine = {key: value for key, value in inside.items() if _is_tensor(value)}
        found = [Found((OWN,), mine)] if mine else []
    else:
        found = _without_numbers(_distinct(_states(inside)))
    if not found:
        raise CheckpointError(_nothing(inside, where))
    keys = [(*(pick[:-1] if own else pick), *(it.keys or ())) for it in found]
    if len(found) > 1:
        # What a mapping holds besides others is told apart from these by the key for itself.
        keys = [(*key, OWN) if not it.keys else key for key, it in zip(keys, found, strict=True)]
        listed = ", ".join(map(_spelled, keys[:8])) + (" and others" if len(keys) > 8 else "")
        raise CheckpointError(
            f"{where}: holds {len(found)} sets of tensors, under {listed}. Say which is meant,"
            f" such as {where}{PICK}{_plain(keys[0])}"
        )
    tensors, lost = _alone(found[0], where)
    beside = [] if own else _beside(inside, found[0].keys)
    return Found(keys[0], tensors, _notes(keys[0], [*beside, *lost]))


def _picked(content: Mapping[Any, Any], where: str, pick: tuple[str, ...]) -> Mapping[Any, Any]:
    inside: Any = content
    for depth, key in enumerate(pick):
        if key not in inside:
            at = f" under {_spelled(pick[:depth])}" if depth else ""
            raise CheckpointError(
                f"{where}: has no key {shown(key)}{at}. Its keys are {_listed(inside)}."
            )
        inside = inside[key]
        if not isinstance(inside, Mapping):
            raise CheckpointError(
                f"{where}: {_spelled(pick[: depth + 1])} is a {type(inside).__name__}, not a"
                " mapping of names to tensors."
            )
    return inside


def _states(inside: Mapping[Any, Any], depth: int = 0) -> Iterator[Found]:
    """Yield the state dicts in a mapping, outermost first."""
    nested = {
        key: value
        for key, value in inside.items()
        if isinstance(key, str) and isinstance(value, Mapping) and not _PASSED_OVER.search(key)
    }
    below = [
        Found((key, *it.keys), it.tensors)
        for key, value in (nested.items() if depth < DEPTH else ())
        for it in _states(value, depth + 1)
    ]
    own = [key for key, value in inside.items() if _is_tensor(value)]
    if own and (not below or _are_weights(own, below)):
        yield Found((), inside)
    yield from below


def _are_weights(own: list[Any], below: list[Found]) -> bool:
    """Whether tensors beside mappings of tensors may be weights themselves, by their names."""
    layers = any("." in str(key) or key in ("weight", "bias") for key in own)
    return layers or not any(_WRAPPERS.search(it.keys[0]) for it in below)


def _distinct(found: Iterator[Found]) -> list[Found]:
    """Return state dicts without those that are others again, tensor for tensor."""
    result: list[Found] = []
    for it in found:
        if not any(_same(it.tensors, other.tensors) for other in result):
            result.append(it)
    return result


def _without_numbers(found: list[Found]) -> list[Found]:
    """Return state dicts without mappings of single numbers, such as losses, beside others."""

    def holds_more(it: Found) -> bool:
        sizes = (tuple(x.shape) for x in it.tensors.values() if _is_tensor(x))
        return not it.keys or any(size not in ((), (1,)) for size in sizes)

    return [it for it in found if holds_more(it)] or found


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a is b or (
        a.keys() == b.keys()
        and all(_is_tensor(x) and _is_tensor(b[key]) and _is_one(x, b[key]) for key, x in a.items())
    )


def _is_one(a: Any, b: Any) -> bool:
    """Whether two tensors are one view of one storage, as far as that can be seen."""
    if a is b or isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is b
    strided = all(str(it.layout) == "torch.strided" and not it.is_nested for it in (a, b))
    return (
        strided
        and (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        and a.device.type == b.device.type == "cpu"
        and a.data_ptr() == b.data_ptr()
        and (a.is_neg(), a.is_conj()) == (b.is_neg(), b.is_conj())
    )


def _alone(found: Found, where: str) -> tuple[dict[Any, Any], list[str]]:
    """Return the tensors of a state dict, and the keys of what else is among them."""
    lost = []
    for key, value in found.tensors.items():
        if _is_tensor(value):
            continue
        if not (isinstance(key, str) and _PASSED_OVER.search(key)) and _may_hold_weights(value):
            raise CheckpointError(
                f"{where}: has {shown(key)}, a {type(value).__name__}, among the tensors."
                " Save `model.state_dict()` alone."
            )
        lost.append(key)
    return {key: value for key, value in found.tensors.items() if _is_tensor(value)}, lost


def _may_hold_weights(value: object, depth: int = 0) -> bool:
    """Whether there are tensors in a value, or what cannot be looked into."""
    if isinstance(value, Mapping | list | tuple | set):
        inside = value.values() if isinstance(value, Mapping) else value
        return depth > 2 * DEPTH or any(_may_hold_weights(item, depth + 1) for item in inside)
    said = value is None or isinstance(value, bool | int | float | str | bytes | np.generic)
    return not said and type(value).__name__ not in ("dtype", "device")


def _beside(inside: Mapping[Any, Any], keys: tuple[str, ...]) -> list[Any]:
    """Return what lies beside the mappings that keys lead through."""
    result: list[Any] = []
    for key in keys:
        result += [other for other in inside if other != key]
        inside = inside[key]
    return result


def _notes(keys: tuple[str, ...], lost: list[Any]) -> tuple[str, ...]:
    lines = [f"the tensors under {_spelled(keys)} are taken"] if keys else []
    if lost:
        lines.append(f"passed over {listing(_cut(key) for key in lost)}")
    return ("; ".join(lines),) if lines else ()


def _nothing(inside: Mapping[Any, Any], where: str) -> str:
    if not inside:
        return f"{where}: holds no tensors."
    return (
        f"{where}: holds no mapping of names to tensors that could be weights; its keys are"
        f" {_listed(inside)}. Save `model.state_dict()`."
    )


def _listed(keys: Iterable[Any]) -> str:
    return listing(map(_cut, keys))


def _spelled(keys: tuple[str, ...]) -> str:
    return repr(_plain(keys))


def _plain(keys: tuple[str, ...]) -> str:
    return printable(PICK.join(keys))


def _cut(key: Any) -> str:
    return key[:80] if isinstance(key, str) else shown(key)


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor | np.ndarray)
