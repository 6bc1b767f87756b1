"""Layers of checkpoints put on top of each other: ``A[0:16] + B[8:24]``.

``PATH[FIRST:LAST]`` are the layers FIRST to LAST - 1 of a checkpoint; the parts are joined by
`` + `` and their layers counted through. A layer is the first number between dots of a name, as in
``model.layers.7.mlp.weight``, so no table of architectures is needed. Of what is in no layer,
embeddings come from the first part, all else (norms, heads) from the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import CheckpointError, listing

_PART = re.compile(r"(?P<path>.*\S)\[(?P<first>\d+):(?P<last>\d+)\]")
#: The number of a layer: the first of a name.
LAYER = re.compile(r"(?:^|(?<=\.))(\d+)(?=\.)")
_FIRST = re.compile(r"embed|(^|\.)(wte|wpe|shared)(\.|$)", re.IGNORECASE)
_HEAD = re.compile(r"embed_out|unembed|lm_head", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """Layers ``first`` to before ``last`` of what ``path`` names."""

    path: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.path}[{self.first}:{self.last}]"


def parse(text: str) -> list[Part] | None:
    """Return the parts that a text names, None if it is something else."""
    found = [_PART.fullmatch(piece.strip()) for piece in text.split(" + ")]
    if not all(found):
        return None
    return [Part(m["path"], int(m["first"]), int(m["last"])) for m in found if m]


def paths(text: str) -> list[str]:
    """Return the paths of the parts that a text names, none if it is something else."""
    return [part.path for part in parse(text) or ()]


def renamed(text: str, rename: Callable[[str], str]) -> str:
    """Return the text with other paths, each through ``rename``; a path alone too."""
    parts = parse(text)
    if parts is None:
        return rename(text)
    return " + ".join(str(replace(part, path=rename(part.path))) for part in parts)


def is_first(name: str) -> bool:
    """Return whether a tensor that is in no layer comes before the layers."""
    return bool(_FIRST.search(name)) and not _HEAD.search(name)


def put_together(text: str, parts: list[Part], opened: list[Checkpoint]) -> Checkpoint:
    """Return the stack of the parts of the open checkpoints; CheckpointError if there is none."""
    for checkpoint in opened:
        if checkpoint.layout is not None and "" not in [p.folder for p in checkpoint.layout.places]:
            raise CheckpointError(
                f"{checkpoint.label}: is a model of several parts"
                f" ({listing(checkpoint.layout.folders)}). Stack the layers of one part."
            )
    prefixes = {_prefix(part, checkpoint) for part, checkpoint in zip(parts, opened, strict=True)}
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{text}: the layers are called differently: {listing(sorted(prefixes))}. Only models"
            " of one architecture can be stacked."
        )
    (prefix,) = prefixes
    tensors: dict[str, Tensor] = {}

    def add(name: str, tensor: Tensor) -> None:
        tensors[name] = replace(tensor, name=name)

    for name, tensor in opened[0].tensors.items():
        if not LAYER.search(name) and is_first(name):
            add(name, tensor)
    layers: list[int] = []
    for part, checkpoint in zip(parts, opened, strict=True):
        for name, tensor in checkpoint.tensors.items():
            match = LAYER.search(name)
            if match and part.first <= int(match[1]) < part.last:
                number = len(layers) + int(match[1]) - part.first
                add(f"{prefix}{number}{name[match.end() :]}", tensor)
        layers += range(part.first, part.last)
    for name, tensor in opened[-1].tensors.items():
        if not LAYER.search(name) and not is_first(name):
            add(name, tensor)

    def close() -> None:
        for checkpoint in opened:
            checkpoint.close()

    repos = [checkpoint.repo or part.path for part, checkpoint in zip(parts, opened, strict=True)]
    names = " + ".join(str(replace(p, path=r)) for p, r in zip(parts, repos, strict=True))
    return Checkpoint(
        text,
        tensors,
        tuple(dict.fromkeys(file for checkpoint in opened for file in checkpoint.files)),
        folder=opened[0].folder,
        repo=names if any(checkpoint.repo for checkpoint in opened) else None,
        close=close,
        parts=tuple(opened),
        layers=tuple(layers),
        layout=opened[0].layout,
        notes=tuple(dict.fromkeys(note for checkpoint in opened for note in checkpoint.notes)),
    )


def _prefix(part: Part, checkpoint: Checkpoint) -> str:
    """Return what stands before the number of a layer; CheckpointError if that is not one text."""
    found: dict[str, set[int]] = {}
    for name in checkpoint.tensors:
        if match := LAYER.search(name):
            found.setdefault(name[: match.start()], set()).add(int(match[1]))
    if len(found) != 1:
        what = (
            f"layers under several names: {listing(sorted(found))}"
            if found
            else "no numbered layers"
        )
        raise CheckpointError(f"{checkpoint.label}: has {what}, so a range of them says nothing.")
    ((prefix, numbers),) = found.items()
    missing = [n for n in range(part.first, part.last) if n not in numbers]
    if missing or part.first >= part.last:
        raise CheckpointError(
            f"{part}: there are no such layers. {checkpoint.label} has those from {min(numbers)}"
            f" to {max(numbers)}; write [0:{max(numbers) + 1}] for all."
        )
    return prefix
