"""The end of a merge in parts: headers, index, card and recipe, and the name, once.

Shards are moved into a folder that no part writes to and get their headers there; that folder takes
the name of the output in one rename. Stopped anywhere, it can be run again; two at once do alike.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import digests, durable
from breadcrumbs.checkpoint.hashing import FileHashes
from breadcrumbs.checkpoint.outfile import OutFile, index
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.checkpoint.writer import REPLACED, told
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.engine.outputs import TensorReport
from breadcrumbs.errors import CheckpointError, OutputError
from breadcrumbs.merging import card, files, inputs
from breadcrumbs.merging.parts import dealing
from breadcrumbs.merging.parts.dealing import Deal, Shard
from breadcrumbs.merging.parts.doing import Merge, begun, is_there, listed
from breadcrumbs.merging.parts.passes import ENDINGS, FILES, NOTES, Again, Round, has_votes
from breadcrumbs.merging.parts.state import WHOLE, Folder
from breadcrumbs.merging.parts.writing import head, metadata, of_row, weights
from breadcrumbs.merging.published import Names
from breadcrumbs.merging.report import Report
from breadcrumbs.plan import Plan, variants
from breadcrumbs.plan.judgement import refuse

AGAIN = "give --commit again"


def commit(
    merge: Merge,
    *,
    threads: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    verify: bool = False,
) -> Report | None:
    """Make the output of its parts and give it its name; return the report of the whole merge.

    None where an earlier commit had done so, and was killed before it ended. OutputError lists what
    is missing, and then nothing is changed. verify: whether all shards are read again.
    """
    began, folder = time.perf_counter(), Folder(Path(merge.output))
    with durable.syncing(sync), told(folder.shown, AGAIN):
        if folder.is_committed:
            folder.clear()
            return None
        with begun(merge, only_on=True) as (plan, folder):
            return _Commit(merge, plan, folder, threads or 1, kernel).done(began, verify)


class _Commit:
    """A commit under way."""

    def __init__(self, merge: Merge, plan: Plan, folder: Folder, threads: int, kernel: str):
        self.merge, self.folder, self.whole = merge, folder, folder.path / WHOLE
        self.deal = Deal(plan, merge.shard_size)
        round_ = Round(folder, self.deal, [], threads, kernel)
        try:
            self.plan, _ = round_.fixed(plan)
            votes, there = has_votes(self.plan), partial(is_there, folder)
            self.notes = round_.elected("notes", votes, _nothing, there=there)
        except Again as again:
            names = [it.path for it in self.deal.shards if it.number in again.left]
            raise OutputError(
                f"{folder.shown}: {again.what} {'are' if again.what == FILES else 'is'} not there"
                f" yet: {len(names)} of {len(self.deal.shards)} are missing, {listed(names)}. Run"
                " the parts again, and then --commit."
            ) from None
        self.plan = replace(self.plan, notes=(*self.plan.notes, *variants.said(self.plan)))

    def done(self, began: float, verify: bool) -> Report:
        """Carry it out; return the report."""
        plan, folder = self.plan, self.folder
        digests_ = self._digests()
        inputs.check(plan, digests_)
        rows = [TensorReport([0] * len(plan.models)) for _ in plan.tensors]
        for note in self.notes.values():
            for number, row in note["rows"].items():
                rows[number] = of_row(row)
        seconds = time.perf_counter() - began
        report = Report.of(plan, rows, seconds, digests_.models(plan), "")
        report.kernel = " and ".join(dict.fromkeys(it["kernel"] for it in self.notes.values()))
        report.output = os.fspath(folder.shown)
        try:
            files.check_added(plan, rows)
        except files.Nothing:
            folder.clear()
            raise
        names = Names(plan, folder.shown)
        try:
            said = self._headed(digests_)
            if verify:
                self._verify()
            if report.norm:
                with self._reader() as read:
                    files.warn_of_rounding(plan, report, read)
            if self.merge.strict:
                refuse(report.warnings)
            self._beside(said, lambda side: card.add(side, plan, report, digests_, names))
            self._rename()
        except FileNotFoundError:  # another commit was faster
            if not self._is_named(digests_):
                raise
            folder.clear()
        inputs.remember(plan, digests_, names)
        report.seconds = time.perf_counter() - began
        return report

    def _digests(self) -> FileDigests:
        """Return the hashes of all inputs; CheckpointError if one is known to be another by now."""
        every, cut = dealing.paths(self.plan)
        found = dict(cut)
        for note in self.notes.values():
            found |= {every[number]: hash_ for number, hash_ in note["hashes"].items()}
        for path, hash_ in FileHashes(path for path in every if path not in cut).known.items():
            if found[path] != hash_:
                raise CheckpointError(
                    f"{path}: changed while it was being merged. Let nothing write to the inputs,"
                    f" remove {self.folder.path}, and begin again."
                )
        return FileDigests(every, found)

    # --- files ---

    def _headed(self, found: FileDigests) -> dict[str, str]:
        """Move all shards to where they get their headers; return what these say of each."""
        for shard in self.deal.shards:
            place = self.whole / shard.path
            place.parent.mkdir(parents=True, exist_ok=True)
            for way in (way for way in ENDINGS if self.folder.has(_notes(way), shard.number)):
                if self.folder.read(_notes(way), shard.number) == self.notes[shard.number]:
                    with contextlib.suppress(FileNotFoundError):  # it is there already
                        os.rename(self.folder.path / weights(way) / shard.path, place)
                        break
        about, said = metadata(self.plan, self.folder.shown, found.digests), {}
        for shard in self.deal.shards:
            data = head(shard, about, bytes.fromhex(self.notes[shard.number]["tensors"]))
            place = self.whole / shard.path
            if place.stat().st_size != len(data) + shard.nbytes:
                raise OutputError(
                    f"{place}: is not what was written there. Remove {self.folder.path} and begin"
                    " again."
                )
            file = OutFile(place, len(data) + shard.nbytes, None)
            try:
                file.write(0, memoryview(data))
                if durable.is_on():
                    file.sync()
            finally:
                file.close()
            said[shard.path] = read_header(place).metadata[digests.DIGEST]
        return said

    def _verify(self) -> None:
        from breadcrumbs import checkpoint

        for shard in self.deal.shards:
            with checkpoint.open(self.whole / shard.path) as opened:
                digests.check(opened, str(self.whole / shard.path), 0)

    @contextmanager
    def _reader(self) -> Iterator[Callable[[int, int, int], np.ndarray]]:
        """Give a function that reads entries of the output: of a tensor by its number."""
        where = {}
        for shard in self.deal.shards:
            at = (self.whole / shard.path).stat().st_size - shard.nbytes
            for number, entry in zip(shard.tensors, shard.entries, strict=True):
                where[number] = self.whole / shard.path, at, entry
                at += entry.nbytes

        def read(number: int, start: int, n: int) -> np.ndarray:
            path, at, entry = where[number]
            with open(path, "rb") as file:
                file.seek(at + entry.bytes_of(start))
                return np.frombuffer(file.read(entry.bytes_of(n)), DTYPES[entry.dtype])

        yield read

    def _beside(self, said: dict[str, str], extras: Callable[[Path], None]) -> None:
        """Write the indexes and what stands beside the weights, each file at once."""
        side = self.folder.path / f".side.{os.getpid()}-{secrets.token_hex(4)}"
        by_place: dict[Any, list[Shard]] = {}
        for shard in self.deal.shards:
            by_place.setdefault(shard.place, []).append(shard)
        try:
            for place, mine in by_place.items():
                (side / place.folder).mkdir(parents=True, exist_ok=True)
                if len(mine) > 1:
                    text = index(
                        {it.name: it.entries for it in mine},
                        {it.name: said[it.path] for it in mine},
                    )
                    (side / place.folder / place.index).write_text(text, encoding="utf-8")
            extras(side)
            for path in sorted(side.rglob("*")):
                target = self.whole / path.relative_to(side)
                if path.is_dir() and not path.is_symlink():
                    target.mkdir(exist_ok=True)
                else:
                    os.replace(path, target)
            durable.tree(self.whole)
        finally:
            shutil.rmtree(side, ignore_errors=True)

    def _rename(self) -> None:
        """Give the output its name. Stopped anywhere in here, old or new is whole somewhere."""
        folder = self.folder
        folder.mark()
        if folder.output.exists():
            if not self.whole.exists():
                raise FileNotFoundError(self.whole)
            if not self.merge.force:
                raise OutputError(
                    f"{folder.shown}: was created in the meantime. Give --force to replace it."
                )
            durable.swap(self.whole, folder.output, folder.path / REPLACED)
        else:
            durable.rename(self.whole, folder.output)
        folder.clear()

    def _is_named(self, found: FileDigests) -> bool:
        """Return whether the output is the one of these parts, with their headers."""
        about = metadata(self.plan, self.folder.shown, found.digests)
        for shard in self.deal.shards:
            data = head(shard, about, bytes.fromhex(self.notes[shard.number]["tensors"]))
            try:
                with open(self.folder.output / shard.path, "rb") as file:
                    if file.read(len(data)) != data:
                        return False
            except OSError:
                return False
        return True


def _notes(way: int) -> str:
    return NOTES + ENDINGS[way]


def _nothing(shard: Shard, way: int) -> dict[str, Any]:
    raise NotImplementedError
