"""Task files -> the fine-tunings that they stand for, as checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from breadcrumbs import checkpoint, machine
from breadcrumbs.checkpoint import beside, composite, durable
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor, items
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.errors import OutputError, RecipeError
from breadcrumbs.merging import card, opening
from breadcrumbs.taskfile import reader, view
from breadcrumbs.threads import Task, run_tasks

#: Blocks of a tensor that one thread copies in one go.
_RUN = 8


def unpack(
    base: opening.Source,
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    threads: int | None = None,
    shard_size: int = 5 * 10**9,
    force: bool = False,
    sync: bool = True,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Path]:
    """Write the fine-tunings that task files stand for; return where they are.

    One goes to ``output``, a folder or a ``.safetensors`` file; of several, each to a folder in it
    that is called as the task. Weights that a task does not keep are the base's, bit for bit.
    threads, shard_size, force, sync: as for a merge.
    """
    if not paths:
        raise RecipeError("task unpack: no task files are given. Give a base and task files.")
    with checkpoint.open(base, "base") as under:
        outputs = [Path(output)]
        with view_files(under, paths) as models, durable.syncing(sync):
            if len(models) > 1:
                names = [model.cut.name for model in models if model.cut]
                _check_names(names, Path(output))
                outputs = [Path(output) / name for name in names]
            for model, path in zip(models, outputs, strict=True):
                _write(under, model, path, threads, shard_size, force, progress)
    return outputs


class view_files:
    """A context that opens task files on a base and closes them."""

    def __init__(self, base: Checkpoint, paths: Sequence[str | os.PathLike[str]]):
        self.base, self.paths = base, paths
        self._files: list[reader.TaskFile] = []

    def __enter__(self) -> list[Checkpoint]:
        try:
            for path in self.paths:
                self._files.append(reader.TaskFile.open(path))
            return view.on_base(self.base, [file.source for file in self._files])
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()


def _check_names(names: list[str], output: Path) -> None:
    if output.suffix == ".safetensors":
        raise OutputError(f"{output}: is one file for {len(names)} tasks. Give a folder.")
    if len(set(names)) < len(names):
        raise RecipeError("task unpack: two tasks have one name. Unpack them one by one.")
    for name in names:
        if not name or name in (".", "..") or set(name) & set('/\\:*?"<>|\0'):
            raise RecipeError(
                f"task unpack: the name {name!r} cannot be that of a folder. Unpack it alone."
            )
    durable.mkdir(output)


def _write(
    base: Checkpoint,
    model: Checkpoint,
    output: Path,
    threads: int | None,
    shard_size: int,
    force: bool,
    progress: Callable[[int], None],
) -> None:
    entries = [Entry(t.name, t.dtype, t.shape) for t in model.tensors.values()]
    assert model.cut is not None
    said = json.dumps({"task": model.cut.name, "hash": model.cut.hash})
    writer = Writer(
        output,
        entries,
        {"format": "pt", "breadcrumbs.unpacked": said},
        shard_size=shard_size,
        key="",
        force=force,
        resume=False,
        layout=composite.of(base),
    )

    def copy(number: int, tensor: Tensor, start: int, stop: int) -> list[Task]:
        values = np.empty(items(tensor.dtype, stop - start), DTYPES[tensor.dtype])
        tensor.read_into(start, values)
        writer.write(number, start, values)
        progress(values.nbytes)
        return []

    try:
        tasks: list[Task] = []
        for number, tensor in enumerate(model.tensors.values()):
            for start in range(0, tensor.size, _RUN * BLOCK):
                stop = min(tensor.size, start + _RUN * BLOCK)
                tasks.append(partial(copy, number, tensor, start, stop))
        run_tasks(tasks, threads or machine.available_cores())
        writer.close(lambda folder: _beside(base, folder, bool(model.untied)))
    except BaseException:
        writer.discard()
        raise


def _beside(base: Checkpoint, folder: Path, untied: bool) -> None:
    """Copy what lies beside the base's weights, with a config that says what is apart."""
    beside.copy(base, folder)
    config = folder / "config.json"
    if untied and config.exists():
        card.untie(config)
