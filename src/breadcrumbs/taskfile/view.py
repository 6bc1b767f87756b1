"""A task file on its base: the fine-tuning that it stands for, read like any checkpoint."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from breadcrumbs import checkpoint, kernels
from breadcrumbs.checkpoint import hashing, tied
from breadcrumbs.checkpoint.adapters import inserted
from breadcrumbs.checkpoint.sparse import BLOCK, Kept, Sparse
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Cut, Inserted, Tensor, shown
from breadcrumbs.errors import MismatchError
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.taskfile import KEY

if TYPE_CHECKING:  # most merges have no task files, so what reads them is imported when one comes
    from breadcrumbs.taskfile.reader import TaskFile

#: Bytes of unpacked blocks that a thread holds at most: chunks of one come after each other.
HELD = 32 << 20
_held = threading.local()


def _size(kept: Kept) -> int:
    return kept.positions.nbytes + kept.values.nbytes


@dataclass(frozen=True, slots=True)
class KeptBytes(Sparse):
    """The bytes of the base's tensor with what a task file keeps in its place."""

    base: Tensor
    task: TaskFile
    dtype: str

    @property
    def share(self) -> float:
        """What is kept of the squared norm of the task vector."""
        return self.task.tensors[self.base.name].share

    def kept(self, block: int, kernels: Kernels | None = None, room: Kept | None = None) -> Kept:
        """See `Sparse.kept`."""
        base = None
        if self.task.encoding.needs_base:
            base = np.empty(self.task.tensors[self.base.name].entries(block), self._own)
            self.base.read_into(block * BLOCK, base)
        return self.task.kept(self.base.name, block, base, kernels, room)

    def change(self, start: int, out: np.ndarray) -> bool:
        """Fill the float64 ``out`` with what is added to the base from entry ``start`` on.

        Where that is known without the rounding of weights, of a product; return whether it is.
        """
        return self.task.change(self.base.name, start, out)

    def number(self, start: int, stop: int) -> int:
        """Return how many entries are kept in the blocks from entry ``start`` to ``stop``."""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        return sum(self.task.number(self.base.name, block) for block in blocks)

    @property
    def _own(self) -> np.dtype:
        return DTYPES[self.base.dtype]

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``start`` on."""
        dtype = DTYPES[self.dtype]
        first, skip = divmod(start, dtype.itemsize)
        if skip or len(out) % dtype.itemsize:  # whole entries, of which some bytes are asked for
            last = -(-(start + len(out)) // dtype.itemsize)
            entries = np.empty(last - first, dtype)
            self.read_into(first * dtype.itemsize, entries.view(np.uint8).data)
            out[:] = entries.view(np.uint8).data[skip : skip + len(out)]
            return
        entries = np.frombuffer(out, dtype)
        if dtype == self._own:
            self.base.read_into(first, entries)
        else:
            own = np.empty(entries.size, self._own)
            self.base.read_into(first, own)
            entries[:] = own
        stop, tools = first + entries.size, kernels.choose()
        for block in range(first // BLOCK, -(-stop // BLOCK)):
            begin = max(first, block * BLOCK)
            end = min(stop, (block + 1) * BLOCK)
            kept, kind = self._recent(block), f"u{dtype.itemsize}"
            values = kept.values.astype(dtype, copy=False).view(kind)
            part = entries[begin - first : end - first].view(kind)
            tools.fill(part, begin - block * BLOCK, kept.positions, values)

    def _recent(self, block: int) -> Kept:
        """Return what a block keeps, at once if this thread has asked for it a moment ago."""
        held = _held.__dict__.setdefault("blocks", OrderedDict())
        key = id(self.task), self.base.name, block
        if key in held:
            held.move_to_end(key)
            return held[key][1]
        kept = self.kept(block, kernels.choose())
        _held.bytes = _held.__dict__.get("bytes", 0) + _size(kept)
        held[key] = self.task, kept  # the task, so that no other one gets its id
        while _held.bytes > HELD and held:
            _, (_, old) = held.popitem(last=False)
            _held.bytes -= _size(old)
        return kept


def opened(base: Checkpoint, task: TaskFile | str | os.PathLike[str]) -> Checkpoint:
    """Return the fine-tuning that a task file stands for, with the open ``base`` under it.

    MismatchError unless the base is the one that it was packed with.
    """
    from breadcrumbs.taskfile.reader import TaskFile

    source = task.source if isinstance(task, TaskFile) else TaskFile.open(task).source
    return on_base(base, [source])[0]


def open_model(base: str, path: str) -> Checkpoint:
    """Return the open model at ``path``: of a task file or adapter, what it makes of ``base``."""
    model = checkpoint.open(path)
    try:
        if KEY not in model.metadata and not model.is_bare_adapter:
            return model
        under = checkpoint.open(base)
        try:
            (found,) = on_base(under, [model])
        except BaseException:
            under.close()
            raise
    except BaseException:
        model.close()
        raise

    def close() -> None:
        model.close()
        under.close()

    return replace(found, close=close)


def on_base(
    base: Checkpoint,
    models: Sequence[Checkpoint],
    rename: Sequence[Sequence[str]] = (),
    refused: Callable[[list[str]], list[str]] = list,
) -> list[Checkpoint]:
    """Return open models, task files and adapters among them as the fine-tunings they stand for.

    rename, refused: of each model and for all, as for `inserted.put_into`.
    The base is hashed, once, if there are task files. Where a model changes apart what the base
    ties, all have it apart (`Checkpoint.untied`), the base too if it is among them. MismatchError
    if it is another one than theirs, or a task file or adapter itself.
    """
    if KEY in base.metadata:
        raise MismatchError(
            f"{base.label}: is a task file, which is not a base. Give the model"
            f" {shown(_read(base).base.name)} first, then the task files."
        )
    inserted.refuse_base(base)
    rules = rename or [()] * len(models)
    models = [
        inserted.put_into(base, model, mine, refused) if model.is_bare_adapter else model
        for model, mine in zip(models, rules, strict=True)
    ]
    tasks = {
        t: _read(model)
        for t, model in enumerate(models)
        if KEY in model.metadata and model.cut is None
    }
    pairs: dict[str, str] = {}
    for model in (base, *models):
        pairs |= model.untied
    for task in tasks.values():
        _check_untied(base, task)
        pairs |= task.about.untied
    apart = tied.untied(base, pairs)
    found: str | None = None
    result = []
    for t, model in enumerate(models):
        if model is base:
            result.append(apart)
            continue
        task = tasks.get(t)
        if task is not None:
            under = apart if task.about.untied else base
            _check_tensors(under, task)
            found = found or hashing.model_hash(base)
            if found != task.base.hash:
                raise _wrong(base, task, f"the hash of {base.label} is {found[:16]}...")
            model = _view(under, model, task)
        lost = {n: other for n, other in pairs.items() if n not in model.untied}
        result.append(tied.untied(model, {n: o for n, o in lost.items() if o in model.tensors}))
    return result


def _read(source: Checkpoint) -> TaskFile:
    from breadcrumbs.taskfile import reader

    return reader.of(source)


def _view(base: Checkpoint, model: Checkpoint, task: TaskFile) -> Checkpoint:
    from breadcrumbs.taskfile import reader

    tensors = {}
    for name, tensor in base.tensors.items():
        mine = task.about.tied.get(name, name)
        if mine in task.tensors:
            under = base.tensors[mine]
            dtype = reader.common_dtype(under, task.tensors[mine])
            tensor = Tensor(name, dtype, tensor.shape, KeptBytes(under, task, dtype))
        tensors[name] = tensor
    cut = Cut(task.name, task.hash, task.transform, task.parameters)
    found = replace(model, tensors=tensors, cut=cut, untied=base.untied)
    if task.about.encoding != "lora":
        return found
    names = frozenset(n for n in base.tensors if task.about.tied.get(n, n) in task.tensors)
    return replace(found, inserted=Inserted(names, base.identity, base.inserted))


def _check_untied(base: Checkpoint, task: TaskFile) -> None:
    """Raise MismatchError unless the base has what a task's tensors were tied to."""
    for name, other in task.about.untied.items():
        if other not in base.tensors:
            raise _wrong(base, task, f"there is no tensor {shown(other)}, which {shown(name)} is")


def _check_tensors(base: Checkpoint, task: TaskFile) -> None:
    wanted = {**task.tensors, **{n: task.tensors[of] for n, of in task.about.tied.items()}}
    for name, tensor in wanted.items():
        mine = base.tensors.get(name)
        if mine is None:
            raise _wrong(base, task, f"there is no tensor {shown(name)}")
        if mine.shape != tensor.shape:
            raise _wrong(base, task, f"tensor {shown(name)} has shape {mine.shape} there")


def _wrong(base: Checkpoint, task: TaskFile, found: str) -> MismatchError:
    revision = f" (revision {task.base.revision})" if task.base.revision else ""
    return MismatchError(
        f"{task.label}: was packed with another base than {base.label}: {found}. Give"
        f" {shown(task.base.name)}{revision}, hash {task.base.hash[:16]}..., as the base."
    )
