"""Tensors of a merge in memory, written as a merge to files would have written them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.hashing import FileHashes
from breadcrumbs.checkpoint.memory import ArrayBytes, open_mapping
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.engine.outputs import SegmentReport, one_by_one
from breadcrumbs.errors import OutputError, listing
from breadcrumbs.merging import card, files
from breadcrumbs.merging.provenance import provenance
from breadcrumbs.merging.published import Names
from breadcrumbs.merging.report import Report
from breadcrumbs.methods import algebra
from breadcrumbs.plan import Plan, variants
from breadcrumbs.plan.units import Segment
from breadcrumbs.threads import run_tasks

#: The bytes of weights that nobody reads any more.
_NOTHING = ArrayBytes(np.empty(0, np.uint8))


def again(it: Plan, tensors: Mapping[str, Any], output: Any, **settings: Any) -> Report:
    """Merge again, into files; OutputError if that is not what ``tensors`` are."""
    found = _of(it, tensors, output)
    flat = [found[tensor.output].reshape(-1) for tensor in it.tensors]
    return files.to_files(it, output, wrap=lambda sink: _Same(sink, it, flat, output), **settings)


def save(
    it: Plan,
    report: Report,
    output: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    *,
    force: bool = False,
    shard_size: int = 5 * 10**9,
) -> Report:
    """Write tensors of a merge whose inputs are in memory; return the report.

    it: the plan, as `without_weights` returns it.
    """
    found = _of(it, tensors, output)
    paths = tuple(dict.fromkeys(f for c in it.inputs for f in c.files))
    hashes = FileHashes(paths)
    digests = FileDigests(paths, hashes.known)
    run_tasks(digests.tasks(), os.cpu_count() or 1)
    names, on = Names(it, Path(output)), algebra.of(it.recipe.device).name
    writer = Writer(
        Path(output),
        files.entries(it),
        {"format": "pt", "breadcrumbs": provenance(it, digests, None, names, on)},
        shard_size=shard_size,
        key="",
        force=force,
        resume=False,
        layout=variants.layout(it),
    )
    try:
        for number, tensor in enumerate(it.tensors):
            writer.write(number, 0, found[tensor.output].reshape(-1))
            writer.finished(number, 0, tensor.base.size, {})
        writer.close(lambda folder: card.add(folder, it, report, digests, names))
    except BaseException:
        writer.discard()
        raise
    return replace(report, output=os.fspath(output))


def without_weights(it: Plan) -> Plan:
    """Return a plan that says all it said, and keeps no weights in memory."""

    def bare(tensor: Tensor | None) -> Any:
        return None if tensor is None else replace(tensor, source=_NOTHING, told=tensor.kind)

    def empty(model: Checkpoint) -> Checkpoint:
        tensors = {name: bare(tensor) for name, tensor in model.tensors.items()}
        return replace(model, tensors=tensors, stored=None, companions=())

    return replace(
        it,
        base=empty(it.base),
        models=tuple(map(empty, it.models)),
        onto=empty(it.onto) if it.onto else None,
        statistics=tuple(map(empty, it.statistics)),
        tensors=tuple(
            replace(
                tensor,
                base=bare(tensor.base),
                models=tuple(map(bare, tensor.models)),
                onto=bare(tensor.onto),
                statistics=tuple(map(bare, tensor.statistics)),
            )
            for tensor in it.tensors
        ),
    )


class _Same(files.FileSink):
    """A sink that compares what it writes with what is there already."""

    def __init__(self, sink: files.FileSink, it: Plan, flat: list[np.ndarray], output: Any):
        super().__init__(sink.writer)
        self.plan, self.flat, self.output = it, flat, output

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        mine = self.flat[index]
        start_ = start * mine.size // max(math.prod(self.plan.tensors[index].base.shape), 1)
        part = mine[start_ : start_ + values.size]
        if part.tobytes() != values.tobytes():
            raise OutputError(
                f"{self.output}: tensor {self.plan.tensors[index].output!r} is not what the merge"
                " made: it or an input has changed since. Merge again, or write the tensors"
                " themselves with safetensors."
            )
        super().write(index, start, values)

    def take_several(
        self, segments: Sequence[Segment], values: np.ndarray, reports: Sequence[SegmentReport]
    ) -> None:
        one_by_one(self, segments, values, reports)


def _of(it: Plan, tensors: Mapping[str, Any], output: Any) -> dict[str, np.ndarray]:
    """Return tensors as arrays; OutputError unless they are those that the plan makes."""
    found = open_mapping(tensors, "merged").tensors
    wanted = {tensor.output: tensor for tensor in it.tensors}
    other = [name for name in (*wanted, *found) if (name in wanted) != (name in found)]
    other = other or [n for n, t in wanted.items() if t.base.shape != found[n].shape]
    other = other or [n for n, t in wanted.items() if t.dtype != found[n].dtype]
    if other:
        raise OutputError(
            f"{output}: these are no longer the merged tensors: {listing(other)} came, went or"
            " changed. Write them with safetensors, or merge again."
        )
    return {name: tensor.read() for name, tensor in found.items()}
