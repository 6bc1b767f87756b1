"""A shard of an output: merged into a file of its own, which takes its name when it is whole.

The room for its header stays empty until the commit, which alone knows the hashes of all inputs.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from breadcrumbs.checkpoint import digests, durable
from breadcrumbs.checkpoint.hashing import FileHashes
from breadcrumbs.checkpoint.outfile import OutFile, header
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.checkpoint.writer import told
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.digests import PENDING, FileDigests
from breadcrumbs.engine.facts import Facts
from breadcrumbs.engine.majority import Ballot
from breadcrumbs.engine.outputs import Output, SegmentReport, TensorReport, one_by_one
from breadcrumbs.errors import OutputError
from breadcrumbs.merging.parts import dealing
from breadcrumbs.merging.parts.dealing import Shard
from breadcrumbs.merging.parts.measuring import Settled
from breadcrumbs.merging.parts.passes import CUTS, ENDINGS, Round, copied
from breadcrumbs.merging.provenance import check_unchanged, provenance, stamps_of
from breadcrumbs.merging.published import Names
from breadcrumbs.merging.report import computed_by
from breadcrumbs.plan import Plan
from breadcrumbs.plan.units import Segment

AGAIN = "run the part again"


def metadata(plan: Plan, output: Path, known: Mapping[Path, str] | None = None) -> dict[str, str]:
    """Return what the header of every file says. known: the hashes of the inputs, once they are."""
    every, cut = dealing.paths(plan)
    found = FileDigests(every, {path: PENDING for path in every} | dict(known or {}) | dict(cut))
    return {"format": "pt", "breadcrumbs": provenance(plan, found, None, Names(plan, output))}


def head(shard: Shard, said: Mapping[str, str], tensors: bytes | None = None) -> bytes:
    """Return the bytes of a shard before its tensors. tensors: their digests, once they are known.

    Of the same length without them.
    """
    about = {**said, **digests.placeholders(len(shard.entries))}
    if tensors is not None:
        about[digests.TENSORS] = tensors.hex()
        about[digests.DIGEST] = digests.of_header(shard.entries, about)
    return header(shard.entries, about)


def weights(way: int) -> str:
    """Return the folder of the shards that were written with a majority."""
    return "weights" + ENDINGS[way]


class ShardFile:
    """An output that has the tensors of a shard, and says of all others that they are done.

    wanted: by the tensor that is merged, where it goes. begin: where the first tensor does.
    """

    def __init__(self, path: Path, shard: Shard, wanted: Mapping[int, Sequence[int]], begin: int):
        self.shard, self.wanted, self._lock = shard, wanted, threading.Lock()
        self._early = durable.Early()
        self._starts = [begin]
        for entry in shard.entries:
            self._starts.append(self._starts[-1] + entry.nbytes)
        self._file = OutFile(path, self._starts[-1], self._early)
        self._digests = digests.Growing([entry.nbytes for entry in shard.entries])
        self._kept: IO[bytes] | None = None
        self.votes = self.undecided = 0

    def is_done(self, segment: Segment) -> SegmentReport | None:
        return None if segment.index in self.wanted else SegmentReport([])

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        data = values.view(np.uint8).data.cast("B")
        for place in self.wanted[index]:
            at = self.shard.entries[place].bytes_of(start)
            self._file.write(self._starts[place] + at, data)
            self._digests.wrote(place, at, data)

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        for place in self.wanted[segment.index]:
            self._digests.settle(place)
        with self._lock:
            if report.election is not None:
                self.undecided += report.election.undecided
                if segment.index in self.shard.tensors:  # not for a copy of what is elsewhere
                    self.votes += report.election.votes

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        one_by_one(self, segments, values, reports)

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        place = self.wanted[index][0]
        entry = self.shard.entries[place]
        at = self._starts[place] + entry.bytes_of(start)
        return np.frombuffer(self._file.read(at, entry.bytes_of(n)), DTYPES[entry.dtype]).copy()

    def keep(self, data: bytes) -> int:
        with self._lock:
            if self._kept is None:
                self._kept = tempfile.TemporaryFile(dir=self._file.path.parent)  # noqa: SIM115
            at = self._kept.seek(0, os.SEEK_END)
            self._kept.write(data)
            return at

    def kept(self, at: int, size: int) -> bytes:
        with self._lock:
            assert self._kept is not None
            self._kept.seek(at)
            return self._kept.read(size)

    def end(self) -> bytes:
        """Put the file on the disk; return the digests of its tensors, one after another."""
        self._early.end()
        found = b"".join(self._digests.tensor(i, self._reader(i)) for i in range(len(self._sizes)))
        if durable.is_on():
            self._file.sync()
        return found

    def verify(self, found: bytes) -> None:
        """Raise OutputError unless what is read again has these digests."""
        for i, entry in enumerate(self.shard.entries):
            mine = digests.read(entry.nbytes, 0, entry.nbytes, self._reader(i))
            if mine != found[i * digests.SIZE : (i + 1) * digests.SIZE]:
                raise OutputError(
                    f"{self.shard.path}: tensor {entry.name!r} reads back other bytes than were"
                    " written. Check the disk and run the part again."
                )

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._early.end()
        self._file.close()
        if self._kept is not None:
            self._kept.close()

    @property
    def _sizes(self) -> list[int]:
        return [entry.nbytes for entry in self.shard.entries]

    def _reader(self, place: int) -> digests.Read:
        return lambda start, size: self._file.read(self._starts[place] + start, size)


class WritingShard(Writing):
    """Writes with a majority that is given."""

    def __init__(self, output: Output, way: int, models: int):
        super().__init__(output)
        self._way, self._models = way, models

    def done(self, segment: Segment) -> SegmentReport | None:
        found = self.output.is_done(segment)
        return None if found is None else SegmentReport([0] * self._models)

    def ballot(self) -> Ballot:
        return Settled(self._way)


class Merging:
    """What it takes to write shards of a plan, one by one. facts: all that is known of the model.

    verify: whether each is read again.
    """

    def __init__(self, round_: Round, plan: Plan, facts: Facts, verify: bool = False):
        self.round, self.plan, self.facts, self.verify = round_, plan, facts, verify
        self.said = metadata(plan, round_.folder.shown)
        self._jobs = dealing.jobs(plan)
        self.every, self.cut = dealing.paths(plan)
        self._hashed = round_.deal.hashed(plan, [it for it in self.every if it not in self.cut])

    def write(self, shard: Shard, way: int) -> dict[str, Any]:
        """Write a shard; return its note. way: the majority that it is written with, 0: none."""
        folder, plan, before = self.round.folder, self.plan, stamps_of(self.plan)
        mine = self._hashed[shard.number]
        hashes = FileHashes(mine)
        found = FileDigests(mine, hashes.known)
        wanted = dealing.wanted(plan, shard)
        jobs = {one: job for i in wanted for one, job in self._jobs.get(i, {}).items()}
        begin = len(head(shard, self.said))
        with (
            told(folder.shown, AGAIN),
            folder.attempt(folder.path / weights(way) / shard.path) as path,
        ):
            out = ShardFile(path, shard, wanted, begin)
            try:
                consumer = WritingShard(out, way, len(plan.models))
                rows = self.round.run(plan, consumer, self._known(shard), jobs, digests=found)
                tensors = out.end()
                if self.verify:
                    out.verify(tensors)
            finally:
                out.close()
            check_unchanged(before, stamps_of(plan))
        hashes.keep(found.digests)
        numbers = {path: i for i, path in enumerate(self.every)}
        return {
            "shard": shard.path,
            "tensors": tensors.hex(),
            "rows": {i: row_of(rows[i]) for i in shard.tensors},
            "hashes": {numbers[path]: hash_ for path, hash_ in found.digests.items()},
            "votes": out.votes,
            "undecided": out.undecided,
            "kernel": computed_by(plan, self.round.kernel),
        }

    def _known(self, shard: Shard) -> Facts:
        """Return what is known of a shard: of the whole model, and what led to alpha."""
        facts, folder = copied(self.facts), self.round.folder
        if folder.has(CUTS, shard.number):
            numbers = {tensor.name: number for number, tensor in enumerate(self.plan.tensors)}
            found = folder.read(CUTS, shard.number).items()
            facts.cuts |= {(numbers[name], start): cut for (name, start), cut in found}
        return facts


def row_of(report: TensorReport) -> list[Any]:
    """Return the report of a tensor as plain data, which `of_row` takes."""
    return [report.kept, float(report.squares), dict(report.counts)]


def of_row(row: list[Any]) -> TensorReport:
    """Return the report that `row_of` described."""
    kept, squares, counts = row
    made = TensorReport([int(number) for number in kept], squares)
    made.counts.update(counts)
    return made
