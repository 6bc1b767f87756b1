"""Write safetensors whose layout is known from the start, in any order, from any thread.

Everything is written into a *partial* folder beside the output and moved to the output's name when
it is whole. A journal in that folder notes the segments that are done, with digests of their
bytes, so that an interrupted merge can go on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import OutputError

JOURNAL = "journal.jsonl"
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Entry:
    """A tensor to write: its name, dtype (safetensors name) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        size = DTYPES[self.dtype].itemsize
        for length in self.shape:
            size *= length
        return size


def shards(entries: Sequence[Entry], shard_size: int | None) -> list[list[int]]:
    """Return the numbers of the entries of each file, in order, none above ``shard_size`` bytes.

    A tensor larger than that has a file of its own. None: one file.
    """
    files: list[list[int]] = [[]]
    used = 0
    for number, entry in enumerate(entries):
        if shard_size is not None and files[-1] and used + entry.nbytes > shard_size:
            files.append([])
            used = 0
        files[-1].append(number)
        used += entry.nbytes
    return files


def shard_name(number: int, of: int) -> str:
    """Return the name that transformers gives shard ``number`` (from 0) of ``of``."""
    return "model.safetensors" if of == 1 else f"model-{number + 1:05d}-of-{of:05d}.safetensors"


def header(entries: Sequence[Entry], metadata: dict[str, str]) -> bytes:
    """Return the bytes before the data: length, JSON, and spaces up to a multiple of 8."""
    described: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for entry in entries:
        described[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [offset, offset + entry.nbytes],
        }
        offset += entry.nbytes
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class OutFile:
    """A file of known size, written by position from any thread."""

    def __init__(self, path: Path, size: int, *, keep: bool):
        self.path, self._lock = path, threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | (0 if keep else os.O_TRUNC)
        self._fd = os.open(path, flags, 0o666)
        os.ftruncate(self._fd, size)

    def write(self, offset: int, data: memoryview) -> None:
        while data:
            if hasattr(os, "pwrite"):
                done = os.pwrite(self._fd, data, offset)
            else:
                with self._lock:
                    os.lseek(self._fd, offset, os.SEEK_SET)
                    done = os.write(self._fd, data)
            data, offset = data[done:], offset + done

    def read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._fd, size, offset)
        with self._lock:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.read(self._fd, size)

    def close(self) -> None:
        os.close(self._fd)


class Writer:
    """An output under way.

    output: the final name, a folder, or a file if it ends in ``.safetensors``. entries: what to
    write. metadata: for the header of each file; its texts may change until `close`, in place of
    texts of the same length. key: what the output depends on; a journal of another key is not
    resumed.
    """

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
    ):
        self.output, self.entries, self.metadata = output, list(entries), metadata
        self.single = output.suffix == ".safetensors"
        self.partial = output.with_name(output.name + ".partial")
        self._lock = threading.Lock()
        self._check_output(force, resume)
        self.done: dict[tuple[int, int], dict[str, Any]] = {}
        keep = resume and self._read_journal(key)
        with self.errors():
            if not keep and self.partial.exists():
                shutil.rmtree(self.partial)
            self.partial.mkdir(parents=True, exist_ok=True)
        self._check_room()
        self._open_files(None if self.single else shard_size, keep)
        with self.errors():
            self._journal = open(self.partial / JOURNAL, "ab", buffering=0)  # noqa: SIM115
            if not keep:
                self._note({"key": key})
        if keep:
            self._check_done()

    # --- before writing ---

    def _check_output(self, force: bool, resume: bool) -> None:
        out, kind = self.output, "file" if self.single else "folder"
        if out.exists() and not force:
            raise OutputError(f"{out}: exists. Give another output, or --force to replace it.")
        if out.exists() and out.is_dir() == self.single:
            raise OutputError(f"{out}: is not a {kind}, so it is not replaced by one. Remove it.")
        if out.is_dir() and any(out.iterdir()) and not any(out.glob("*.safetensors")):
            raise OutputError(
                f"{out}: holds no merged model, so --force does not replace it. Remove it yourself,"
                " or give another output."
            )
        if self.partial.exists() and not (self.partial / JOURNAL).is_file():
            raise OutputError(f"{self.partial}: is in the way and not ours. Remove or rename it.")
        if self.partial.exists() and not (resume or force):
            raise OutputError(
                f"{self.partial}: an earlier merge was interrupted there, or is still running."
                " Give --resume to go on with it, or --force to begin again."
            )
        if not out.parent.is_dir() and out.parent.exists():
            raise OutputError(f"{out.parent}: is not a folder. Give another output.")

    def _check_room(self) -> None:
        wanted = sum(entry.nbytes for entry in self.entries)
        used = sum(f.stat().st_blocks * 512 for f in self._data_files() if hasattr(f, "stat"))
        free = shutil.disk_usage(self.partial).free + used
        if wanted > free:
            self._drop_if_fresh()
            raise OutputError(
                f"{self.output.parent.resolve()}: {wanted / 1e9:.2f} GB are needed and"
                f" {free / 1e9:.2f} GB are free. Make room, or give an output on another disk."
            )

    def _data_files(self) -> list[Path]:
        return [f for f in self.partial.glob("*.safetensors") if hasattr(f.stat(), "st_blocks")]

    def _drop_if_fresh(self) -> None:
        if not self.done:
            shutil.rmtree(self.partial, ignore_errors=True)

    def _open_files(self, shard_size: int | None, keep: bool) -> None:
        self.files: list[tuple[OutFile, list[int]]] = []
        self._where: list[tuple[OutFile, int]] = [None] * len(self.entries)  # type: ignore
        groups = shards(self.entries, shard_size)
        for number, group in enumerate(groups):
            mine = [self.entries[i] for i in group]
            start = len(header(mine, self.metadata))
            with self.errors():
                file = OutFile(
                    self.partial / shard_name(number, len(groups)),
                    start + sum(entry.nbytes for entry in mine),
                    keep=keep,
                )
            self.files.append((file, group))
            for i in group:
                self._where[i] = (file, start)
                start += self.entries[i].nbytes

    # --- the journal ---

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def _read_journal(self, key: str) -> bool:
        """Read what is done; False if there is nothing to resume."""
        try:
            lines = (self.partial / JOURNAL).read_bytes().split(b"\n")
        except OSError:
            return False
        notes = []
        for line in lines:
            try:
                notes.append(json.loads(line))
            except ValueError:  # a line cut off when the program was killed
                continue
        if not notes or notes[0] != {"key": key}:
            raise OutputError(
                f"{self.partial}: was begun with another recipe, other inputs or another version."
                " Give --force to begin again."
            )
        for note in notes[1:]:
            self.done[note["tensor"], note["start"]] = note
        return True

    def _check_done(self) -> None:
        """Forget what is noted as done but is not on the disk as it was written."""
        for place, note in list(self.done.items()):
            if self.digest(note["tensor"], note["start"], note["stop"]) != note["digest"]:
                del self.done[place]

    def digest(self, number: int, start: int, stop: int) -> str:
        """Return the digest of entries of a tensor as they lie in the file."""
        file, offset = self._where[number]
        itemsize = DTYPES[self.entries[number].dtype].itemsize
        hasher = blake3()
        for at in range(start * itemsize, stop * itemsize, 1 << 20):
            hasher.update(file.read(offset + at, min(1 << 20, stop * itemsize - at)))
        return hasher.hexdigest(length=16)

    # --- writing ---

    def write(self, number: int, start: int, values: np.ndarray) -> None:
        """Write entries of tensor ``number`` from flat position ``start`` on."""
        file, offset = self._where[number]
        data = values.view(np.uint8).data.cast("B")
        with self.errors():
            file.write(offset + start * DTYPES[self.entries[number].dtype].itemsize, data)

    def finished(self, number: int, start: int, stop: int, digest: str, more: dict) -> None:
        """Note that entries ``start`` to ``stop`` of a tensor are written."""
        note = {"tensor": number, "start": start, "stop": stop, "digest": digest, **more}
        with self._lock, self.errors():
            self.done[number, start] = note
            self._note(note)

    def verify(self) -> None:
        """Read the output again and compare digests; OutputError names the first difference."""
        for note in self.done.values():
            if self.digest(note["tensor"], note["start"], note["stop"]) != note["digest"]:
                name = self.entries[note["tensor"]].name
                raise OutputError(
                    f"{self.output}: tensor {name!r} reads back other bytes than were written."
                    " Check the disk and merge again."
                )

    def close(self, extras: Callable[[Path], None]) -> None:
        """Write headers, index and what ``extras`` adds to a folder, and give it its final name."""
        with self.errors():
            for file, group in self.files:
                file.write(0, memoryview(header([self.entries[i] for i in group], self.metadata)))
            for file, _ in self.files:
                file.close()
            if not self.single:
                if len(self.files) > 1:
                    (self.partial / INDEX).write_text(self._index(), encoding="utf-8")
                extras(self.partial)
            self._journal.close()
            self._rename()

    def _index(self) -> str:
        total = sum(entry.nbytes for entry in self.entries)
        where = {self.entries[i].name: file.path.name for file, group in self.files for i in group}
        return json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2) + "\n"

    def _rename(self) -> None:
        old = self.output.with_name(self.output.name + ".replaced")
        if self.single:
            os.replace(self.files[0][0].path, self.output)
            shutil.rmtree(self.partial)
            return
        if self.output.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(self.output, old)
        (self.partial / JOURNAL).unlink()
        os.rename(self.partial, self.output)
        shutil.rmtree(old, ignore_errors=True)

    def abandon(self) -> None:
        """Leave the partial folder for a later --resume."""
        for file, _ in self.files:
            file.close()
        self._journal.close()

    def errors(self) -> _Errors:
        """Return a context that turns an OSError into an OutputError that says what to do."""
        return _Errors(self.output)


class _Errors:
    def __init__(self, output: Path):
        self.output = output

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full. Make room and give --resume to go on."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "It cannot be written there. Give another output."
        else:
            advice = "Give another output, or look at the disk."
        raise OutputError(f"{self.output}: {error.strerror or error}. {advice}") from None
