"""Adapters of experts that are stacked in one parameter (PEFT's ``target_parameters``).

A is (E r, in), the rows of one expert after those of another; B is (out, r E), where the columns of
all experts take turns: ``delta[e] = scale * B[:, e::E] A[e r : (e + 1) r]``. The parameter is a
stack (E, out, in) or (E, in, out), which shapes tell, or the base's files have a tensor for each
expert, of which `transformers` makes the stack: gate and up projections one below the other.

Several parameters of one module are nested: ``experts.lora_A`` and ``experts.base_layer.lora_A`` do
not say whose they are. Shapes tell that, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from breadcrumbs.checkpoint.adapters import peft
from breadcrumbs.checkpoint.adapters.adapter import ADVICE, Adapter, Pair
from breadcrumbs.checkpoint.products import EXACT, Factors
from breadcrumbs.checkpoint.stack import LAYER
from breadcrumbs.checkpoint.tensors import Checkpoint, shown
from breadcrumbs.errors import MismatchError, listing

#: Where the files have a tensor for each expert: the module, and what makes up a parameter.
_APART = (
    ("", {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}),
    ("block_sparse_moe", {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}),
)


@dataclass(frozen=True)
class Stacks:
    """What an adapter's stacks are in a base. wanted: shapes by the adapter's names.

    found: by module and parameter, its names: one, or those of each part for each expert.
    """

    wanted: dict[str, tuple[int, ...]] = field(default_factory=dict)
    found: dict[tuple[str, str], list[list[str]]] = field(default_factory=dict)


def named(adapter: Adapter, base: Checkpoint) -> Stacks:
    """Return which tensors the stacks of an adapter change; MismatchError where there are none."""
    stacks = Stacks()
    ends = _ends(adapter, base)
    for module in adapter.stacks:
        for parameter in peft.parameters(adapter.config, module):
            names = _names(module, parameter, ends)
            if not names:
                raise MismatchError(
                    f"{adapter.label}: changes {shown(f'{module}.{parameter}')}, which {base.label}"
                    f" lacks. {ADVICE}"
                )
            stacks.found[module, parameter] = names
            for name in (name for part in names for name in part):
                stacks.wanted[name] = ends[_end(name)]
    return stacks


def _ends(adapter: Adapter, base: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Return shapes of the base's tensors by the end of their names, if there is a use for them."""
    if not adapter.stacks:
        return {}
    return {_end(name): tensor.shape for name, tensor in base.tensors.items()}


def _end(name: str) -> str:
    """Return a name from the number of its layer on."""
    found = LAYER.search(name)
    return name[found.start() :] if found else name


def _names(module: str, parameter: str, known: Mapping[str, object]) -> list[list[str]]:
    """Return the names of a parameter: itself, or of each of its parts those of all experts."""
    if _end(f"{module}.{parameter}") in known:
        return [[f"{module}.{parameter}"]]
    for other, parts in _APART:
        inner = module.replace(".mlp.", f".{other}.") if other else module
        found = []
        for part in parts.get(parameter, ()):
            number, names = 0, []
            while _end(name := f"{inner}.{number}.{part}.weight") in known:
                names.append(name)
                number += 1
            found.append(names)
        if found and all(found) and len({len(names) for names in found}) == 1:
            return found
    return []


def factors(
    adapter: Adapter, names: Mapping[str, str], base: Checkpoint, stacks: Stacks
) -> dict[str, Factors]:
    """Return the factors of the base's tensors; MismatchError where the shapes do not tell them."""
    result: dict[str, Factors] = {}
    for module, pairs in adapter.stacks.items():
        mine = {p: found for (m, p), found in stacks.found.items() if m == module}
        lost = [n for found in mine.values() for part in found for n in part if n not in names]
        if lost:
            raise MismatchError(
                f"{adapter.label}: changes {listing(lost, 3)}, which {base.label} lacks. {ADVICE}"
            )
        ways = _ways(pairs, mine, names, base)
        if len(ways) != 1:
            why = "more than one of" if ways else "none of"
            shapes = ", ".join(f"{b.shape} and {a.shape}" for a, b in pairs)
            raise MismatchError(
                f"{adapter.label}: by their shapes, the products of {shapes} for {shown(module)}"
                f" fit {why} {listing(mine)}, or fit in two ways. {ADVICE}"
            )
        for (a, b), (parameter, way) in zip(pairs, ways[0], strict=True):
            result |= _of(adapter, module, parameter, (a, b), way, mine[parameter], names, base)
    return result


def _ways(
    pairs: list[Pair],
    mine: Mapping[str, list[list[str]]],
    names: Mapping[str, str],
    base: Checkpoint,
) -> list[list[tuple[str, str]]]:
    """Return the possible parameters of pairs, and how each lies there."""
    found: list[list[tuple[str, str]]] = []
    for order in permutations(mine) if len(pairs) == len(mine) <= 4 else ():
        options: list[list[tuple[str, str]]] = [[]]
        for pair, parameter in zip(pairs, order, strict=True):
            lies = _lies(pair, mine[parameter], names, base)
            options = [[*option, (parameter, lie)] for option in options for lie in lies]
        found += options
    return found


def _lies(
    pair: Pair, parts: list[list[str]], names: Mapping[str, str], base: Checkpoint
) -> list[str]:
    """Return how a product may lie in the matrices of a stack: ``B A``, or turned."""
    a, b = pair
    shape, number = _shape(parts, names, base)
    if len(shape) != 2 or len(a.shape) != 2 or len(b.shape) != 2 or {a.dtype, b.dtype} - set(EXACT):
        return []
    if not a.shape[0] or a.shape[0] % number or b.shape[1] != a.shape[0]:
        return []
    ends = (b.shape[0], a.shape[1])
    return [way for way, found in (("plain", ends), ("turned", ends[::-1])) if found == shape]


def _shape(
    parts: list[list[str]], names: Mapping[str, str], base: Checkpoint
) -> tuple[tuple[int, ...], int]:
    """Return the shape of one matrix of a stack, and how many there are."""
    shapes = [base.tensors[names[part[0]]].shape for part in parts]
    if len(parts) == len(parts[0]) == 1:
        (shape,) = shapes
        return (shape[1:], shape[0]) if len(shape) == 3 and shape[0] else (shape, 1)
    if any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        return (), 1
    return (sum(shape[0] for shape in shapes), shapes[0][1]), len(parts[0])


def _of(
    adapter: Adapter,
    module: str,
    parameter: str,
    pair: Pair,
    way: str,
    parts: list[list[str]],
    names: Mapping[str, str],
    base: Checkpoint,
) -> dict[str, Factors]:
    """Return the factors of a parameter, by the names of the base's tensors."""
    a, b = (tensor.read() for tensor in pair)
    _, number = _shape(parts, names, base)
    rank = len(a) // number
    scale = peft.scale(adapter.config, f"{module}.{parameter}", rank)
    left = np.ascontiguousarray(b.reshape(len(b), rank, number).transpose(2, 0, 1))
    right = a.reshape(number, rank, -1)
    if way == "turned":
        left, right = (np.ascontiguousarray(x.transpose(0, 2, 1)) for x in (right, left))
    if not all(np.isfinite(x.astype(np.float32)).all() for x in (left, right)):
        raise MismatchError(f"{adapter.label}: {shown(f'{module}.{parameter}')} is not finite.")
    if len(parts) == len(parts[0]) == 1:
        whole = Factors(left.reshape(-1, rank), right.reshape(number * rank, -1), scale, number)
        return {names[parts[0][0]]: whole}
    result, start = {}, 0
    for part in parts:
        rows = base.tensors[names[part[0]]].shape[0]
        for expert, name in enumerate(part):
            mine = np.ascontiguousarray(left[expert, start : start + rows])
            result[names[name]] = Factors(mine, np.ascontiguousarray(right[expert]), scale)
        start += rows
    return result
