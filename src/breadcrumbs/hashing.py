"""BLAKE3 of the input files, read in order while the merge reads the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from blake3 import blake3

from breadcrumbs.checkpoint.files import File
from breadcrumbs.plan import Plan
from breadcrumbs.schedule import Task

STEP = 4 << 20
BUFFER = 1 << 20
PENDING = "0" * 64


class FileDigests:
    """The digest of every file, as tasks that each take some more of one file.

    digests: by path, `PENDING` until its last task has run.
    """

    def __init__(self, files: Sequence[Path]):
        self.digests = {path: PENDING for path in files}
        self.sizes = {path: path.stat().st_size for path in files}

    def models(self, plan: Plan) -> list[str]:
        """Return the labels of the models whose files hold the same bytes as the base's."""
        base = [self.digests[path] for path in plan.base.files]
        return [
            model.label
            for model in plan.models
            if base and [self.digests[path] for path in model.files] == base
        ]

    def tasks(self) -> list[Task]:
        """Return tasks whose order goes through all files at the same relative pace."""
        ranked = []
        for path, size in self.sizes.items():
            run = _Run(self, path, size)
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
            buffer = np.empty(BUFFER, np.uint8)
            with self.lock, File(self.path) as file:
                while self.at < end:
                    piece = buffer[: min(BUFFER, end - self.at)]
                    file.read_into(self.at, piece.data)
                    self.hasher.update(piece.data)
                    self.at += piece.size
                if self.at == self.size:
                    self.owner.digests[self.path] = self.hasher.hexdigest()
            return []

        return step
