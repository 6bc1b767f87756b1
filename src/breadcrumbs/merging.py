"""Merge: recipe in, files or arrays out."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

import breadcrumbs
from breadcrumbs import checkpoint, engine, hashing, plan, recipe
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.writer import Entry, Writer
from breadcrumbs.engine import SegmentReport, TensorReport
from breadcrumbs.errors import RecipeError
from breadcrumbs.memory import ArraySink
from breadcrumbs.plan import Plan
from breadcrumbs.recipe import Model, Recipe
from breadcrumbs.work import Segment


class FileSink:
    """Hands merged segments to a `Writer` and reports back those that an earlier run finished."""

    def __init__(self, writer: Writer):
        self.writer = writer
        self._hashers: dict[int, Any] = {}

    def is_done(self, segment: Segment) -> SegmentReport | None:
        note = self.writer.done.get((segment.index, segment.start))
        if note is None or note["stop"] != segment.stop:
            return None
        return SegmentReport(note["kept"], note["squares"])

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        import threading

        self.writer.write(index, start, values)
        self._hashers.setdefault(threading.get_ident(), blake3()).update(values.view(np.uint8))

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        import threading

        digest = self._hashers.pop(threading.get_ident()).hexdigest(length=16)
        more = {"kept": report.kept, "squares": report.squares}
        self.writer.finished(segment.index, segment.start, segment.stop, digest, more)


def to_files(r: Recipe, output: Path, threads: int = 2, **k):
    base = checkpoint.open(r.base)
    models = [checkpoint.open(m.path) for m in r.models]
    p = plan.make(r, base, models)
    files = [f for c in (base, *models) for f in c.files]
    digests = hashing.FileDigests(files)
    w = Writer(output, [Entry(t.name, t.dtype, t.base.shape) for t in p.tensors], {"format": "pt"}, shard_size=5 * 10**9, key="x", force=k.get("force", False), resume=False)
    rep = engine.run(p, FileSink(w), threads=threads, also=digests.tasks() if k.get("hash", True) else [])
    w.close(lambda path: None)
    return rep
