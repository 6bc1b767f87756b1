"""Shards of one model by their names: ``STEM-0000i-of-0000N.safetensors``, without an index."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from breadcrumbs.errors import CheckpointError, listing

_SHARD = re.compile(
    r"(?P<stem>.*?)[-_.]?(?P<number>\d{1,7})[-_]of[-_](?P<count>\d{1,7})(?P<rest>.*)"
    r"(?P<suffix>\.(safetensors|bin|pt|pth|ckpt))"
)
#: Of several sets in one folder, the first of these is taken, as of files that are whole.
STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")


@dataclass(frozen=True)
class Shards:
    """Files of one model. stem: what their names begin with. names: by number. count: of all."""

    stem: str
    names: dict[int, str]
    count: int

    @property
    def missing(self) -> list[str]:
        """The names of those that are not there; numbers begin at 1, at 0 if there is a 0."""
        start = 0 if 0 in self.names else 1
        known = next(iter(self.names.items()))
        lost = [n for n in range(start, start + self.count) if n not in self.names]
        return [_renumbered(known[1], known[0], number) for number in lost]

    @property
    def listed(self) -> list[str]:
        return [self.names[number] for number in sorted(self.names)]


def is_shard(name: str) -> bool:
    """Whether a file's name says that it is one of several."""
    return _SHARD.fullmatch(name) is not None


def sets(names: Iterable[str]) -> list[Shards]:
    """Return the sets of shards among file names, in the order of their stems."""
    found: dict[tuple[str, ...], Shards] = {}
    for name in sorted(names):
        if match := _SHARD.fullmatch(name):
            key = match["stem"], match["rest"], match["suffix"], match["count"]
            mine = found.setdefault(key, Shards(match["stem"], {}, int(match["count"])))
            mine.names[int(match["number"])] = name
    return list(found.values())


def whole(names: Iterable[str], where: str) -> list[str]:
    """Return the names of the shards of one model; CheckpointError if they are not just one's."""
    found = sets(names)
    chosen = [it for stem in STEMS for it in found if it.stem == stem][:1] or found
    if len(chosen) > 1:
        raise CheckpointError(
            f"{where}: holds shards of {len(chosen)} models without an index:"
            f" {listing(it.listed[0] for it in chosen)}. Keep those of one in a folder."
        )
    (shards,) = chosen
    if shards.missing:
        raise CheckpointError(
            f"{where}: has {len(shards.names)} of {shards.count} shards, and no index. Missing:"
            f" {listing(shards.missing)}. Download or copy them, and the index."
        )
    return shards.listed


def _renumbered(name: str, old: int, new: int) -> str:
    match = _SHARD.fullmatch(name)
    assert match
    digits = str(new).zfill(match.end("number") - match.start("number"))
    return name[: match.start("number")] + digits + name[match.end("number") :]
