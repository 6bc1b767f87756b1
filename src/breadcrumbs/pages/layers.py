"""Where a tensor stands in a model, told from its name: the number of its layer, and its kind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Kinds that a figure shows at most; of more, the ends of their names are dropped.
MOST = 28
#: What the layer of a tensor outside of the numbered ones is called.
OUTSIDE = "\N{EN DASH}"
_ENDS = ("weight", "bias", "weight_scale", "gamma", "beta")


@dataclass(frozen=True)
class Place:
    """kind: the module, without its number. layer: its number, None outside of all layers. stack:
    what tells its stack of layers from others, empty where there is one."""

    kind: str
    layer: int | None
    stack: str = ""

    @property
    def column(self) -> str:
        """The layer as text."""
        return OUTSIDE if self.layer is None else str(self.layer)

    @property
    def row(self) -> str:
        """The layer as text, with its stack."""
        return "outside of layers" if self.layer is None else f"{self.stack} {self.layer}".strip()


def places(names: Iterable[str]) -> dict[str, Place]:
    """Return the place of each tensor.

    The first number in a name is that of the layer; later ones (experts, parts of a block) become a
    star. Where a model has several stacks of layers, such as towers, kinds begin with what tells
    the stacks apart. Of more than `MOST` kinds, the ends of the names are dropped until they are
    fewer.
    """
    split = {name: _split(name) for name in names}
    stacks = sorted({stack for stack, layer, _ in split.values() if layer is not None})
    short = dict(zip(stacks, _apart(stacks), strict=True))
    found = {
        name: Place(f"{short.get(stack, '')} {kind}".strip(), layer, short.get(stack, ""))
        for name, (stack, layer, kind) in split.items()
    }
    depth = max((place.kind.count(".") for place in found.values()), default=0)
    while len({place.kind for place in found.values()}) > MOST and depth > 0:
        found = {name: Place(_cut(p.kind, depth), p.layer, p.stack) for name, p in found.items()}
        depth -= 1
    return found


def columns(found: Iterable[Place]) -> list[str]:
    """Return the layers in their order, what is outside of them first."""
    numbers = {place.layer for place in found}
    outside = [OUTSIDE] if None in numbers else []
    return [*outside, *map(str, sorted(number for number in numbers if number is not None))]


def _split(name: str) -> tuple[str, int | None, str]:
    """Return the stack that a tensor is in, the number of its layer, and its kind."""
    parts = name.replace("/", ".").split(".")
    at = next((i for i, part in enumerate(parts[:-1]) if part.isdecimal()), None)
    rest = parts if at is None else parts[at + 1 :]
    if len(rest) > 1 and rest[-1] in _ENDS:
        rest = rest[:-1]
    kind = ".".join("*" if part.isdecimal() else part for part in rest)
    if at is None:
        return "", None, kind
    return ".".join(parts[:at]), int(parts[at]), kind


def _apart(stacks: list[str]) -> list[str]:
    """Return what tells stacks apart: their names without what they begin and end with alike."""
    if len(stacks) < 2:
        return [""] * len(stacks)
    parts = [stack.split(".") for stack in stacks]
    while all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    while all(len(p) > 1 and p[-1] == parts[0][-1] for p in parts):
        parts = [p[:-1] for p in parts]
    return [re.sub(r"_(model|blocks)$", "", ".".join(p)) for p in parts]


def _cut(kind: str, depth: int) -> str:
    return ".".join(kind.split(".")[:depth])
