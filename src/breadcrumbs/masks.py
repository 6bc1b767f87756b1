"""TALL masks in a file: all tasks as one vector and one bit of each weight for each task.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024,
arXiv:2405.07813. With the base, such a file rebuilds the model of any of its tasks:

    import breadcrumbs
    from breadcrumbs import masks

    masks.write("base", ["cats", "dogs"], "tasks.safetensors")
    cats = masks.open("base", "tasks.safetensors", "cats")  # a mapping; or as files:
    breadcrumbs.merge("base", [cats], method="task_arithmetic", alpha=1, output="cats-again")

The file is a safetensors file: of each merged tensor ``vector/NAME``, float32 (float64 if the
base's is), and for each task, from 0, ``mask/TASK/NAME``, uint8, eight entries a byte, the first
entry in the highest bit; the names of the tasks stand in the metadata. The format may change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs import checkpoint, merging, work
from breadcrumbs.aggregates import tall
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.checkpoint.writer import Entry, Writer
from breadcrumbs.engine import Engine
from breadcrumbs.errors import CheckpointError, MismatchError, OutputError, suggestion
from breadcrumbs.kernels import plain
from breadcrumbs.merging import Source
from breadcrumbs.preparing import look
from breadcrumbs.recipe import Recipe
from breadcrumbs.sink import Nowhere

_KEY, _VERSION = "breadcrumbs.masks", 1


def write(
    base: Source,
    models: Sequence[Source],
    output: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    on: str = "sum",
    scale: Any = 0.4,
    force: bool = False,
) -> None:
    """Write the multi-task vector and the masks of ``models`` to a ``.safetensors`` file.

    names: of the tasks, the last parts of the paths unless given. on, scale: see the method
    ``tall_mask``. force: replace a file that exists.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise OutputError(f"{output}: masks are written to one file. Give NAME.safetensors.")
    recipe = Recipe(
        merging.label(base, "base"),
        merging.named(models, names),
        "consensus",  # whose masks they are
        parameters={"on": on, "scale": scale},
    )
    with merging.opened(recipe, [base, *models]) as plan, np.errstate(over="ignore"):
        engine = Engine(plan, Nowhere())
        jobs = [job for job in work.jobs(plan) if not plan.tensors[job.pieces[0].index].copied]
        first = {}  # of the entries of a tensor
        entries: list[Entry] = []
        for index, tensor in enumerate(plan.tensors):
            if tensor.copied:
                continue
            first[index] = len(entries)
            size = tensor.base.size
            dtype = "F64" if tensor.base.dtype == "F64" else "F32"
            entries.append(Entry(f"vector/{tensor.name}", dtype, tensor.base.shape))
            tasks = range(len(models))
            entries += [Entry(f"mask/{t}/{tensor.name}", "U8", (-(-size // 8),)) for t in tasks]
        about = {"version": _VERSION, "tasks": [model.name for model in plan.recipe.models]}
        metadata = {_KEY: json.dumps(about)}
        writer = Writer(
            output, entries, metadata, shard_size=None, key="", force=force, resume=False
        )
        try:
            stream = look(engine, [(job, None) for job in jobs])
            for index, start, part in stream.located():
                values, number = plan.tensors[index].values, first[index]
                terms = part.terms
                total, rest = tall.multi_task(part, terms)
                writer.write(number, start, total.astype(DTYPES[entries[number].dtype]))
                for t, mask in enumerate(tall.masks(part, terms, total, rest, values)):
                    writer.write(number + 1 + t, start // 8, np.packbits(mask))
            writer.close(lambda folder: None)
        except BaseException:
            writer.abandon()
            raise


def tasks(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the tasks of a file of masks."""
    text = read_header(path).metadata.get(_KEY)
    if text is None:
        raise CheckpointError(f"{path}: holds no masks. Give a file that `masks.write` has made.")
    about = json.loads(text)
    if about["version"] != _VERSION:
        raise CheckpointError(f"{path}: has masks of another version. Write them again.")
    return about["tasks"]


def read(path: str | os.PathLike[str], task: str) -> dict[str, np.ndarray]:
    """Return the masks of a task by tensor, as arrays of bools in the tensors' shapes."""
    number = _number(path, task)
    with checkpoint.open(path) as file:
        result = {}
        for name, vector in _vectors(file).items():
            bits = np.unpackbits(file[f"mask/{number}/{name}"], count=vector.size)
            result[name] = bits.astype(np.bool_).reshape(vector.shape)
    return result


def open(base: Source, path: str | os.PathLike[str], task: str) -> Checkpoint:
    """Return the model of a task as its mask rebuilds it, computed as it is read.

    ``base + mask * vector``, rounded once to the base's dtype. What has no mask is the base's.
    """
    number = _number(path, task)
    under, file = checkpoint.open(base, "base"), checkpoint.open(path)
    tensors = dict(under.tensors)
    for name, vector in _vectors(file).items():
        if name not in tensors or tensors[name].shape != vector.shape:
            found = f"shape {tensors[name].shape}" if name in tensors else "no such tensor"
            raise MismatchError(
                f"{under.label}: tensor {name!r}: {path} is made for shape {vector.shape}, but"
                f" here is {found}. Give the base that the masks were written with."
            )
        mask = file.tensors[f"mask/{number}/{name}"]
        source = Rebuilt(tensors[name], vector, mask)
        tensors[name] = Tensor(name, tensors[name].dtype, vector.shape, source)

    def close() -> None:
        file.close()
        if under is not base:
            under.close()

    return Checkpoint(f"{path}: {task}", tensors, close=close)


def _number(path: str | os.PathLike[str], task: str) -> int:
    known = tasks(path)
    if task not in known:
        raise CheckpointError(
            f"{path}: has no task {task!r}.{suggestion(task, known)} There are {', '.join(known)}."
        )
    return known.index(task)


def _vectors(file: Checkpoint) -> Mapping[str, Tensor]:
    start = "vector/"
    return {
        key.removeprefix(start): tensor
        for key, tensor in file.tensors.items()
        if key.startswith(start)
    }


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The bytes of ``base + mask * vector``."""

    base: Tensor
    vector: Tensor
    mask: Tensor

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the tensor's bytes from ``start`` on."""
        itemsize = DTYPES[self.base.dtype].itemsize
        end = start + len(out)
        first, last = start // itemsize, -(-end // itemsize)
        base, vector = (_part(tensor, first, last) for tensor in (self.base, self.vector))
        bytes_ = _part(self.mask, first // 8, -(-last // 8))
        held = np.unpackbits(bytes_)[first % 8 :][: last - first]
        wide = base.astype(np.float64)
        step = np.where(held, vector.astype(np.float64), 0.0)
        merged = plain.round_to(np.where(step == 0, wide, wide + step), self.base.dtype)
        skip = start - first * itemsize
        out[:] = merged.view(np.uint8).data.cast("B")[skip : skip + len(out)]


def _part(tensor: Tensor, first: int, last: int) -> np.ndarray:
    values = np.empty(last - first, DTYPES[tensor.dtype])
    tensor.read_into(first, values)
    return values
