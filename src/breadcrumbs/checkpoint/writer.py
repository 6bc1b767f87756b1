"""Write safetensors whose layout is known from the start, in any order, from any thread.

Everything is written into a *partial* folder beside the output, which takes the output's name when
it is whole. A journal in it notes the segments that are done, with digests of their bytes, so that
an interrupted merge can go on; it is locked as long as a process writes there. On a resume every
noted segment is read again, so that the journal may be ahead of the disk after a power cut. What
takes the output's name is on the disk by then (`durable`), and an old output goes after that.

    OUT.partial/.breadcrumbs-journal    {"key": ...}, then a line of JSON for each segment done
    OUT.partial/**.safetensors          of their final size; the headers are written last, with
                                        digests of the tensors (`digests`)
    OUT.partial/.replaced               the old output, between two renames (--force)
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from breadcrumbs.checkpoint import beside, digests, durable, locks, places
from breadcrumbs.checkpoint.files import _allow_more_files, runs
from breadcrumbs.checkpoint.journal import JOURNAL, Journal
from breadcrumbs.checkpoint.layout import Layout, Place
from breadcrumbs.checkpoint.outfile import Entry, OutFile, groups, header, index
from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import OutputError, listing

REPLACED = ".replaced"
#: In the partial folder of a merge in parts (`merging.parts`), which is no process's own.
IN_PARTS = "plan.json"
_MANY_FILES = 100
#: Ends of the names of single files of other kinds, which no folder of weights is meant to have.
_OTHER_FILES = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".npz")


class Writer:
    """An output under way.

    output: the final name, a folder, or a file if it ends in ``.safetensors``; what a symbolic
    link points to, not the link, is written. entries: what to write. metadata: for the header of
    each file; its texts may change until `close`, in place of texts of the same length. key: what
    the output depends on; a journal of another key is not resumed, and one of an empty key by
    nobody. force: replace an output that exists, and begin again where a merge was interrupted.
    resume: go on with that one instead. again: what messages say to do for that. digested: whether
    headers get digests of the tensors. layout: the folders and names of an output's files.

    done: what an earlier run finished, by tensor and start; a dict with ``stop``, ``digest`` and
    what `finished` was given.
    """

    #: What to do where the disk has no room.
    room = "Make room, or give an output on another disk."

    def __init__(
        self,
        output: Path,
        entries: Sequence[Entry],
        metadata: dict[str, str],
        *,
        shard_size: int | None,
        key: str,
        force: bool,
        resume: bool,
        again: str = "give --resume",
        digested: bool = True,
        layout: Layout | None = None,
    ):
        places.refuse_output(str(output))
        self.again, self.layout = again if key else "run this again", layout or Layout()
        self.shown, self.output = output, Path(os.path.realpath(output))
        self.entries, self.metadata, self.force = list(entries), metadata, force
        self.single = self.output.suffix == ".safetensors"
        if self.output.suffix in _OTHER_FILES and not self.output.is_dir():
            instead = output.with_suffix(".safetensors")
            raise OutputError(
                f"{output}: no such files are written. Give {instead}, or a folder of another name."
            )
        self.partial = self.output.parent / (self.output.name + ".partial")
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        self.files: list[tuple[OutFile, list[int]]] = []
        self._where: dict[int, tuple[OutFile, int]] = {}
        self._names: dict[OutFile, tuple[Place, list[Entry]]] = {}
        self._lock = threading.Lock()
        self._kept: IO[bytes] | None = None
        self._early = durable.Early()
        self._digested = digested
        self._digests = digests.Growing([entry.nbytes for entry in self.entries])
        advice = "Give --resume to go on with it, or --force to start over."
        if not key:
            advice = "Give another output, or --force to start over."
        with self.errors():
            self._check_output()
            self._check_room()
            self._journal = Journal(self.partial, output, again=resume or force, advice=advice)
        try:
            with self.errors():
                keep = resume and self._journal.go_on(key)
                if not keep:
                    self._clear()
                    self._journal.begin(key)
                self._open_files(None if self.single else shard_size)
                if keep:
                    self._find_done()
        except BaseException:
            self.abandon() if resume else self.discard()
            raise

    # --- before writing ---

    def _check_output(self) -> None:
        out, kind = self.output, "file" if self.single else "folder"
        if not out.name:
            raise OutputError(f"{self.shown}: cannot be an output. Give a new name.")
        self._finish_replacing()
        if self.single and self.layout.several:
            raise OutputError(
                f"{self.shown}: is one file, and the model has weights in"
                f" {listing(self.layout.folders)}. Give a folder, or merge one part alone."
            )
        if out.exists():
            if not self.force:
                raise OutputError(
                    f"{self.shown}: exists. Give another output, or --force to replace it."
                )
            if out.is_dir() == self.single:
                raise OutputError(
                    f"{self.shown}: is not a {kind}, so it is not replaced by one. Remove it."
                )
            if out.is_dir():
                check_replaceable(self.output, self.shown)
        partial = self.partial
        if (partial / IN_PARTS).is_file():
            raise OutputError(
                f"{partial}: a merge in parts is under way there. Go on with --part and --commit,"
                " or remove it."
            )
        ours = (partial / JOURNAL).is_file() or (partial.is_dir() and not any(partial.iterdir()))
        if partial.exists() and not ours:
            raise OutputError(
                f"{partial}: is in the way and was not made by Breadcrumbs. Remove or rename it."
            )

    def _finish_replacing(self) -> None:
        """Delete the old output in a new one, if the process was killed that should have."""
        journal = self.output / JOURNAL
        if self.single or not journal.is_file() or not (self.output / REPLACED).is_dir():
            return
        with open(journal, "ab") as file:
            if locks.lock(file.fileno()) is not False and locks.is_at(file.fileno(), journal):
                shutil.rmtree(self.output / REPLACED, ignore_errors=True)
                if locks.renames_open():
                    journal.unlink()

    def _check_room(self) -> None:
        wanted = sum(entry.nbytes for entry in self.entries)
        used = 0
        for path in self.partial.rglob("*.safetensors"):
            found = path.stat()
            blocks = getattr(found, "st_blocks", None)  # a file's holes take no room
            used += found.st_size if blocks is None else blocks * 512
        there = next(path for path in (self.partial, *self.partial.parents) if path.exists())
        free = shutil.disk_usage(there).free + used
        if wanted > free:
            raise OutputError(
                f"{self.output.parent}: {wanted / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB"
                f" are free. {self.room}"
            )

    def _clear(self) -> None:
        """Remove what an earlier merge left, but give a replaced output its name back."""
        old = self.partial / REPLACED
        if old.exists() and not self.output.exists():
            durable.rename(old, self.output)
        durable.empty(self.partial, leave=JOURNAL)

    def _open_files(self, shard_size: int | None) -> None:
        groups = self._groups(shard_size)
        if len(groups) > _MANY_FILES:
            _allow_more_files()
        for place, name, group, mine in groups:
            start = len(header(mine, {**self.metadata, **self._placeholders(group)}))
            size = start + sum(entry.nbytes for entry in mine)
            path = self.partial / place.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = OutFile(path, size, self._early)
            self.files.append((file, group))
            self._names[file] = place, mine
            for number, entry in zip(group, mine, strict=True):
                self._where[number] = file, start
                start += entry.nbytes

    def _placeholders(self, group: Sequence[int]) -> dict[str, str]:
        return digests.placeholders(len(group)) if self._digested else {}

    def _groups(self, shard_size: int | None) -> list[tuple[Place, str, list[int], list[Entry]]]:
        """Return of each file its place and name, the numbers of its entries, and these there."""
        return groups(self.entries, self.layout, shard_size)

    def _find_done(self) -> None:
        """Take as done what the journal notes and what is on the disk as it was written."""
        for place, note in self._notes().items():
            if self._digest(note["tensor"], note["start"], note["stop"]) == note["digest"]:
                self.done[place] = note

    def _notes(self) -> dict[tuple[int, int], dict[str, Any]]:
        """Return the last note of every segment, by tensor and start."""
        return {(note["tensor"], note["start"]): note for note in self._journal.segments()}

    def _digest(self, number: int, start: int, stop: int) -> str:
        """Return a digest of written entries; those of which none is known are read."""
        entry = self.entries[number]
        at = entry.bytes_of(start), entry.bytes_of(stop)
        return self._digests.of(number, *at, self._reader(number)).hex()

    def _reader(self, number: int) -> Callable[[int, int], bytes]:
        file, offset = self._where[number]
        return lambda start, size: file.read(offset + start, size)

    # --- writing ---

    def write(self, number: int, start: int, values: np.ndarray) -> None:
        """Write entries of tensor ``number`` from flat position ``start`` on."""
        file, offset = self._where[number]
        data = values.view(np.uint8).data.cast("B")
        at = self.entries[number].bytes_of(start)
        with self.errors():
            file.write(offset + at, data)
        if self._digested:
            self._digests.wrote(number, at, data)

    def write_several(
        self, numbers: Sequence[int], values: np.ndarray, more: Sequence[dict[str, Any]]
    ) -> None:
        """Write whole small tensors whose values lie one after the other, and note that they are.

        more: what the journal has of each besides. What lies side by side is written at once.
        """
        data = values.view(np.uint8).data.cast("B")
        sizes = [self.entries[number].nbytes for number in numbers]
        with self.errors():
            for file, offset, at, size in runs([self._where[n] for n in numbers], sizes):
                file.write(offset, data[at : at + size])
            if max(sizes, default=0) <= digests.BLOCK and min(sizes, default=0):
                found = self._digests.wrote_several(numbers, data)
            else:
                at = 0
                for number, size in zip(numbers, sizes, strict=True):
                    self._digests.wrote(number, 0, data[at : at + size])
                    at += size
                stops = [math.prod(self.entries[number].shape) for number in numbers]
                found = [self._digest(n, 0, stop) for n, stop in zip(numbers, stops, strict=True)]
        notes = [
            {
                "tensor": number,
                "start": 0,
                "stop": math.prod(self.entries[number].shape),
                "digest": digest,
                **its,
            }
            for number, digest, its in zip(numbers, found, more, strict=True)
        ]
        with self._lock, self.errors():
            self._journal.note(*notes)

    def read(self, number: int, start: int, n: int) -> np.ndarray:
        """Return a copy of n entries that have been written, from flat position ``start`` on."""
        (file, offset), entry = self._where[number], self.entries[number]
        with self.errors():
            data = file.read(offset + entry.bytes_of(start), entry.bytes_of(n))
        return np.frombuffer(data, DTYPES[entry.dtype]).copy()

    def keep(self, data: bytes) -> int:
        """Keep bytes until the output is whole, in a file without a name on its disk."""
        import tempfile

        with self._lock, self.errors():
            if self._kept is None:
                self._kept = tempfile.TemporaryFile(dir=self.partial)  # noqa: SIM115
            at = self._kept.seek(0, os.SEEK_END)
            self._kept.write(data)
            return at

    def kept(self, at: int, size: int) -> bytes:
        """Return bytes that were kept at ``at``."""
        with self._lock, self.errors():
            assert self._kept is not None
            self._kept.seek(at)
            return self._kept.read(size)

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def finished(self, number: int, start: int, stop: int, more: dict[str, Any]) -> None:
        """Note that entries ``start`` to ``stop`` of a tensor are written."""
        with self.errors():
            digest = self._digest(number, start, stop)
        self._digests.settle(number)
        with self._lock, self.errors():
            self._journal.note(
                {"tensor": number, "start": start, "stop": stop, "digest": digest, **more}
            )

    def remember(self, text: str) -> None:
        """Note a text of what was found out for the output, for whoever goes on with it."""
        with self._lock, self.errors():
            self._journal.remember(text)

    def remembered(self) -> list[str]:
        """Return the texts of an earlier run that are as they were noted."""
        with self.errors():
            return list(self._journal.remembered())

    def verify(self) -> None:
        """Read the output again and compare digests; OutputError names the first difference."""
        with self.errors():
            for note in self._notes().values():
                entry = self.entries[note["tensor"]]
                at = entry.bytes_of(note["start"]), entry.bytes_of(note["stop"])
                found = digests.read(entry.nbytes, *at, self._reader(note["tensor"]))
                if found.hex() != note["digest"]:
                    raise OutputError(
                        f"{self.shown}: tensor {entry.name!r} reads back other bytes than were"
                        " written. Check the disk and merge again."
                    )

    def close(self, extras: Callable[[Path], None]) -> None:
        """Write headers, index and what ``extras`` adds to a folder, and give it its final name.

        All of it is on the disk before that.
        """
        self._forget()
        with self.errors():
            self._early.end()
            said: dict[Place, dict[str, str]] = {}
            for file, group in self.files:
                place, mine = self._names[file]
                metadata = self._described(group, mine)
                said.setdefault(place, {})[file.path.name] = metadata.get(digests.DIGEST, "")
                head = header(mine, metadata)
                assert not group or len(head) == self._where[group[0]][1]
                file.write(0, memoryview(head))
                if durable.is_on():
                    file.sync()
                file.close()
            if not self.single:
                self._write_indexes(said)
                extras(self.partial)
                durable.tree(self.partial, leave=(JOURNAL, REPLACED))
            if self.output.exists() and not self.force:
                raise OutputError(
                    f"{self.shown}: was created in the meantime. Give --resume --force to"
                    f" replace it."
                )
            self._journal.let_rename()
            self._rename()
            self._journal.close()

    def _described(self, group: Sequence[int], entries: Sequence[Entry]) -> dict[str, str]:
        """Return the metadata of a file, with the digests of its tensors.

        entries: those of the ``group``, as they are called in the file.
        """
        if not self._digested:
            return self.metadata
        found = b"".join(self._digests.tensor(i, self._reader(i)) for i in group)
        metadata = {**self.metadata, **self._placeholders(group), digests.TENSORS: found.hex()}
        return {**metadata, digests.DIGEST: digests.of_header(entries, metadata)}

    def _write_indexes(self, said: Mapping[Place, dict[str, str]]) -> None:
        """Write the index of each folder whose weights are in several files.

        said: the digest of each file, by place.
        """
        for place in dict.fromkeys(place for place, _ in self._names.values()):
            pairs = self._names.items()
            mine = {file.path.name: found for file, (where, found) in pairs if where == place}
            if len(mine) > 1:
                text = index(mine, said[place] if self._digested else None)
                (self.partial / place.folder / place.index).write_text(text, encoding="utf-8")

    def _rename(self) -> None:
        """Give the output its name. Stopped anywhere in here, old or new is whole somewhere."""
        if self.single:
            durable.replace(self.files[0][0].path, self.output)
            self._remove_partial()
            return
        if self.output.exists():
            durable.swap(self.partial, self.output, self.partial / REPLACED)
        else:
            durable.rename(self.partial, self.output)
        shutil.rmtree(self.output / REPLACED, ignore_errors=True)
        (self.output / JOURNAL).unlink()

    def abandon(self) -> None:
        """Leave the partial folder for a later resume."""
        self._stop()
        self._journal.close()

    def discard(self) -> None:
        """Leave nothing."""
        self._stop()
        if not locks.renames_open():
            self._journal.close()
        self._remove_partial()
        self._journal.close()

    def _stop(self) -> None:
        self._forget()
        with suppress(OSError):
            self._early.end()
        for file, _ in self.files:
            file.close()

    def _remove_partial(self) -> None:
        """Remove the partial folder, the journal last, which says that it is ours."""
        durable.remove(self.partial, last=JOURNAL)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn an OSError into an OutputError that says what to do."""
        with told(self.shown, self.again):
            yield


def check_replaceable(output: Path, shown: Path) -> None:
    """Raise OutputError unless a folder is empty or a model that we wrote and nothing else."""
    if os.path.ismount(output):
        raise OutputError(
            f"{shown}: is where a disk is mounted, so it cannot be replaced. Give a new folder"
            " inside it."
        )
    found = beside.foreign(output, spare=REPLACED)
    if found is not None and any(p.name != REPLACED for p in output.iterdir()):
        what = repr(found) if found else "no model of ours"
        raise OutputError(
            f"{shown}: holds {what}, so --force does not replace it. Remove it yourself, or give"
            " another output."
        )


@contextmanager
def told(shown: Path, again: str) -> Iterator[None]:
    """Turn an OSError into an OutputError that says what to do. again: how to go on after it."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Give another output, or check the disk.")
        advice = advice.format(again=again)
        raise OutputError(f"{shown}: {error.strerror or error}. {advice}") from None


_FULL = "Make room and {again} to go on."
_DENIED = "It cannot be written there. Give another output."
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Give a smaller --shard-size, or an output on another disk.",
    errno.EMFILE: "Give a larger --shard-size, or allow more with `ulimit -n 65536`.",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
}
