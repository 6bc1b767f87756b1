"""The shards of an output: which tensors each has, and which input files it hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from breadcrumbs.checkpoint.files import FileRange
from breadcrumbs.checkpoint.layout import Place
from breadcrumbs.checkpoint.outfile import Entry, groups
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.engine.facts import UnitId
from breadcrumbs.merging import files
from breadcrumbs.merging.provenance import stamp
from breadcrumbs.plan import Plan, units, variants
from breadcrumbs.plan.units import Job


@dataclass(frozen=True)
class Shard:
    """A file of the output. number: from 1. tensors: numbers in the plan of what is in it, in
    order; entries: the same, as they are called in the file."""

    number: int
    place: Place
    name: str
    tensors: tuple[int, ...]
    entries: tuple[Entry, ...]

    @property
    def path(self) -> str:
        """Where it lies in the folder of the output."""
        return f"{self.place.folder}/{self.name}" if self.place.folder else self.name

    @cached_property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.entries)


class Deal:
    """How a plan is dealt to shards. owner: by the name of a tensor, the number of its shard.
    component: of a pipeline, by the number of a shard, all of which is of one."""

    def __init__(self, plan: Plan, shard_size: int):
        found = groups(files.entries(plan), variants.layout(plan), shard_size)
        self.shards = [
            Shard(i + 1, place, name, tuple(numbers), tuple(entries))
            for i, (place, name, numbers, entries) in enumerate(found)
        ]
        self.component = {
            it.number: plan.tensors[it.tensors[0]].component if it.tensors else ""
            for it in self.shards
        }
        self.owner = {plan.tensors[i].name: it.number for it in self.shards for i in it.tensors}

    def of(self, part: int, parts: int) -> list[Shard]:
        """Return the shards of one of so many parts: every so-manieth."""
        return self.shards[part - 1 :: parts]

    def jobs(self, plan: Plan) -> dict[int, dict[UnitId, Job]]:
        """Return by shard the jobs of a plan that have something of it."""
        found: dict[int, dict[UnitId, Job]] = {it.number: {} for it in self.shards}
        for index, mine in jobs(plan).items():
            found[self.owner[plan.tensors[index].name]] |= mine
        return found

    def hashed(self, plan: Plan, paths: Sequence[Path]) -> dict[int, list[Path]]:
        """Return by shard the files that it hashes: those of which it reads most.

        So most of what is hashed is read anyway, and every file is hashed by one.
        """
        read: dict[Path, Counter[int]] = {path: Counter() for path in paths}
        for tensor in plan.tensors:
            every = (tensor.base, *tensor.models, *tensor.statistics, tensor.onto)
            for one in filter(None, every):
                for source in _sources(one):
                    if source.file.path in read:
                        read[source.file.path][self.owner[tensor.name]] += one.nbytes
        found: dict[int, list[Path]] = {it.number: [] for it in self.shards}
        for i, (path, by) in enumerate(read.items()):
            most = max(by, key=lambda number: (by[number], -number), default=None)
            found[most or 1 + i % len(self.shards)].append(path)
        return found


def jobs(plan: Plan) -> dict[int, dict[UnitId, Job]]:
    """Return by the number of a tensor the jobs that have some of it."""
    found: dict[int, dict[UnitId, Job]] = {}
    for job in units.jobs(plan):
        for piece in job.pieces:
            found.setdefault(piece.index, {})[job.unit_id] = job
    return found


def wanted(plan: Plan, shard: Shard) -> dict[int, list[int]]:
    """Return, by the tensor of the plan that is merged for it, the places of a shard's tensors.

    A tied copy is made from what it is a copy of, which may lie in another shard.
    """
    numbers = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
    found: dict[int, list[int]] = {}
    for place, number in enumerate(shard.tensors):
        of = plan.tensors[number].tied
        found.setdefault(numbers[of] if of else number, []).append(place)
    return found


def stamps(plan: Plan) -> list[list[object]]:
    """Return of every input file its model, name, size and time of writing; of one at a URL what
    tells it from others there, in place of the time."""
    found: list[list[object]] = []
    for source in plan.inputs:
        for path in source.files:
            size, written, *_ = stamp(path)
            found.append([source.label, source.shown_file(path), size, written])
    return found


def paths(plan: Plan) -> tuple[tuple[Path, ...], Mapping[Path, str]]:
    """Return the input files, each once, and the hashes that are known of those that were cut."""
    every = tuple(dict.fromkeys(path for source in plan.inputs for path in source.files))
    return every, {path: c.cut.hash for c in plan.inputs if c.cut for path in c.files}


def _sources(tensor: Tensor) -> Iterator[FileRange]:
    """Yield where a tensor's bytes lie, as far as they are plain ranges of files."""
    if isinstance(tensor.source, FileRange):
        yield tensor.source
    for part in getattr(tensor.source, "parts", ()):
        if isinstance(part, Tensor):
            yield from _sources(part)
