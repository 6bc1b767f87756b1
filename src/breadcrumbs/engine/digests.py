"""BLAKE3 of input files, from the bytes that the merge reads where they come in their order."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint.files import File, FileRange
from breadcrumbs.checkpoint.tensors import Tensor
from breadcrumbs.plan import Plan
from breadcrumbs.threads import Task

STEP = 4 << 20
GAP = 16 << 20
BUFFER = 1 << 20
PENDING = "0" * 64


class FileDigests:
    """The digest of every file, from what is offered, and as tasks that do what is left.

    digests: by path, `PENDING` until its last task has run. known: those that need not be found.
    step: bytes of a task. gap: bytes left out by offers that are read to go on with the next one.
    """

    def __init__(
        self,
        files: Sequence[Path],
        known: Mapping[Path, str] | None = None,
        *,
        step: int = STEP,
        gap: int = GAP,
    ):
        known, self.step, self.gap = known or {}, step, gap
        self.digests = {path: known.get(path, PENDING) for path in files}
        self.sizes = {path: path.stat().st_size for path in files}
        self._runs = {
            path: _Run(self, path, size) for path, size in self.sizes.items() if path not in known
        }

    def offer(self, tensor: Tensor, start: int, raw: np.ndarray) -> None:
        """Hash the entries of a tensor from ``start`` on, if they come next in a file."""
        source = tensor.source
        if isinstance(source, FileRange) and source.file.path in self._runs:
            self.offer_bytes(source.file, source.offset + start * raw.itemsize, raw)

    def offer_bytes(self, file: File, at: int, raw: np.ndarray) -> None:
        """Hash the bytes of a file from position ``at`` on, if they come next."""
        run = self._runs.get(file.path)
        if run is not None:
            run.offer(file, at, raw.view(np.uint8))

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
            size, step = run.size, self.step
            steps = max(1, -(-size // step))
            ranked += [((i + 1) / steps, run.upto(min(size, (i + 1) * step))) for i in range(steps)]
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
            if self.at < start + data.size and start - self.at <= self.owner.gap:
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
