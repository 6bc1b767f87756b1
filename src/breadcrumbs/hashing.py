"""BLAKE3 of models, and of input files from the bytes that the merge reads where in their order."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs import cache, checkpoint
from breadcrumbs.checkpoint.files import File, FileRange
from breadcrumbs.checkpoint.memory import ArrayBytes
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.checkpoint.tied import stored
from breadcrumbs.plan import Plan
from breadcrumbs.schedule import Task

STEP = 4 << 20
#: Bytes left out by offers that are read to be able to go on with the next one.
GAP = 16 << 20
BUFFER = 1 << 20
PENDING = "0" * 64
#: Bytes of a model that are read at once.
MODEL_STEP = 8 << 20
#: Where hashes of models are kept.
KIND = "hashes"
#: Seconds since the last write after which a later write bears a later time.
SETTLED = 2.0


class FileDigests:
    """The digest of every file, from what is offered, and as tasks that do what is left.

    digests: by path, `PENDING` until its last task has run. known: those that need not be found.
    """

    def __init__(self, files: Sequence[Path], known: Mapping[Path, str] | None = None):
        known = known or {}
        self.digests = {path: known.get(path, PENDING) for path in files}
        self.sizes = {path: path.stat().st_size for path in files}
        self._runs = {
            path: _Run(self, path, size) for path, size in self.sizes.items() if path not in known
        }

    def offer(self, tensor: Tensor, start: int, raw: np.ndarray) -> None:
        """Hash the entries of a tensor from ``start`` on, if they come next in a file."""
        source = tensor.source
        if isinstance(source, FileRange) and source.file.path in self._runs:
            at = source.offset + start * raw.itemsize
            self._runs[source.file.path].offer(source.file, at, raw.view(np.uint8))

    def models(self, plan: Plan) -> list[str]:
        """Return the labels of the models whose files hold the same bytes as the base's."""
        base = [self.digests[path] for path in plan.base.files]
        return [
            model.label
            for model in plan.models
            if base
            and [self.digests[path] for path in model.files] == base
            and model.layers == plan.base.layers
            and model.files != plan.base.files
        ]

    def tasks(self) -> list[Task]:
        """Return tasks whose order goes through all files at the same relative pace."""
        ranked = []
        for run in self._runs.values():
            size = run.size
            steps = max(1, -(-size // STEP))
            ranked += [((i + 1) / steps, run.upto(min(size, (i + 1) * STEP))) for i in range(steps)]
        return [task for _, task in sorted(ranked, key=lambda pair: pair[0])]


class _Run:
    """One file being hashed from its start on."""

    def __init__(self, owner: FileDigests, path: Path, size: int):
        self.owner, self.path, self.size = owner, path, size
        self.at, self.hasher, self.lock = 0, blake3(), threading.Lock()

    def upto(self, end: int) -> Task:
        def step() -> list[Task]:
            with self.lock:
                if self.at < end:
                    with File(self.path) as file:
                        self._read(file, end)
                if self.at == self.size:
                    self.owner.digests[self.path] = self.hasher.hexdigest()
            return []

        return step

    def offer(self, file: File, start: int, data: np.ndarray) -> None:
        """Hash what is new of the bytes from ``start`` on, unless that is too far ahead."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            if self.at < start + data.size and start - self.at <= GAP:
                self._read(file, start)
                self.hasher.update(data[self.at - start :].data)
                self.at = start + data.size
        finally:
            self.lock.release()

    def _read(self, file: File, end: int) -> None:
        buffer = np.empty(BUFFER, np.uint8)
        while self.at < end:
            piece = buffer[: min(BUFFER, end - self.at)]
            file.read_into(self.at, piece.data)
            self.hasher.update(piece.data)
            self.at += piece.size


def model_hash(
    source: str | os.PathLike[str] | Mapping[str, Any], threads: int = 0, fresh: bool = False
) -> str:
    """Return the BLAKE3 of a model's weights: names, dtypes, shapes and bytes, in order of names.

    source: whatever `breadcrumbs.open` opens. The hash is that of the tensors: the same for one
    file, for shards and for arrays in memory, whatever the order and whatever else the files say.
    Arrays are hashed where they are; files are read in steps. threads: 0 for one a core.

    The hash of files is kept (`cache.folder`) and given again as long as nothing wrote to them, by
    their sizes, times and inodes. fresh: whether to read them all the same.
    """
    whole = checkpoint.open(source)
    opened = stored(whole)
    try:
        key = _key(opened)
        kept = cache.read(cache.folder(), KIND, key) if key and not fresh else None
        if kept is not None:
            return kept.decode()
        found = _of_weights(opened, threads)
        if key and _key(opened) == key:
            cache.write(cache.folder(), KIND, key, found.encode())
    finally:
        if whole is not source:
            whole.close()
    return found


def stamp(path: str) -> tuple[tuple[str, int, int, int], ...]:
    """Return what changes when something writes to a file or folder, or replaces it.

    The same for whatever is neither, such as a hub id.
    """
    where = Path(path)
    files = sorted(where.iterdir()) if where.is_dir() else [where]
    found = [(file.name, file.stat()) for file in files if file.exists()]
    return tuple((name, said.st_ino, said.st_size, said.st_mtime_ns) for name, said in found)


def _of_weights(model: Checkpoint, threads: int) -> str:
    hasher = blake3(max_threads=threads or blake3.AUTO)
    buffer = np.empty(0, np.uint8)
    for name in sorted(model.tensors):
        tensor = model.tensors[name]
        head = json.dumps([name, tensor.dtype, list(tensor.shape)]).encode()
        hasher.update(len(head).to_bytes(8, "little") + head)
        where = tensor.source
        if isinstance(where, ArrayBytes) and where.array.flags.c_contiguous:
            hasher.update(where.array.reshape(-1).view(np.uint8).data)
            continue
        if not buffer.size:
            buffer = np.empty(MODEL_STEP, np.uint8)
        for start in range(0, tensor.nbytes, MODEL_STEP):
            piece = buffer[: min(MODEL_STEP, tensor.nbytes - start)]
            where.read_into(start, piece.data)
            hasher.update(piece.data)
    return hasher.hexdigest()


def _key(model: Checkpoint) -> str | None:
    """Return a digest of where a model's weights lie and when that was last written.

    None where weights are no plain bytes of files, or where these were written so lately that a
    write that follows may bear the same time.
    """
    files: dict[File, list[Any]] = {}
    tensors = []
    for name, tensor in model.tensors.items():
        parts = getattr(tensor.source, "parts", (tensor,))  # of quantised weights several
        for source in (part.source for part in parts):
            if not isinstance(source, FileRange):
                return None
            if source.file not in files:
                said = os.fstat(source.file.fileno())
                if time.time() - max(said.st_mtime, said.st_ctime) < SETTLED:
                    return None
                times = [said.st_mtime_ns, said.st_ctime_ns]
                place = os.path.realpath(source.file.path)
                found = [len(files), place, said.st_dev, said.st_ino, said.st_size, *times]
                files[source.file] = found
            number = files[source.file][0]
            tensors.append([name, tensor.dtype, tensor.shape, number, source.offset])
    written = json.dumps([list(files.values()), tensors])
    return blake3(written.encode()).hexdigest() if tensors else None
