"""Extract: the model of one task out of an archive, as a checkpoint or as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.archives.archive import open_archive
from breadcrumbs.archives.rebuilding import rebuilt
from breadcrumbs.checkpoint import beside, composite, durable
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, items
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.errors import CheckpointError
from breadcrumbs.merging import card, opening
from breadcrumbs.plan.recipe import beside as beside_file
from breadcrumbs.taskfile.about import BaseReference
from breadcrumbs.version import __version__

STEP = 1 << 20


def model(
    archive: str | os.PathLike[str], task: str, base: opening.Source | None = None
) -> Checkpoint:
    """Return the model of a task: a checkpoint whose tensors are computed as they are read.

    base: the base that the archive was made with; unless told, where it was then. MismatchError
    where it is another one, CheckpointError where the archive was altered.
    """
    opened = open_archive(archive)
    try:
        under = open_base(opened.path, opened.base, base)
        try:
            opened.check_base(under)
            opened.verify_task(opened.number(task))
            found = rebuilt(opened, under, task)
        except BaseException:
            if under is not base:
                under.close()
            raise
    except BaseException:
        opened.file.close()
        raise

    def close() -> None:
        opened.file.close()
        if under is not base:
            under.close()

    return replace(found, close=close)


def open_base(where: str, needed: BaseReference, base: opening.Source | None) -> Checkpoint:
    """Return the base, open: that given, or else where the file called ``where`` says it was.

    CheckpointError says how to give it, if there is nothing.
    """
    if base is not None:
        return checkpoint.open(base, "base")
    try:
        name = "@".join(filter(None, (needed.name, needed.revision)))
        return checkpoint.open(beside_file(Path(where), name))
    except CheckpointError as error:
        said = str(error).removesuffix(" Give a path, or a hub id like org/name.")
        raise CheckpointError(
            f"{where}: its base is not where it was: {said} Give --base BASE; in Python, base=."
        ) from None


def extract(
    archive: str | os.PathLike[str],
    task: str,
    output: str | os.PathLike[str],
    *,
    base: opening.Source | None = None,
    shard_size: int = 5 * 10**9,
    force: bool = False,
    sync: bool = True,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> int:
    """Write the model of a task to a folder, or a ``.safetensors`` file; return its bytes.

    base: as of `model`. A folder gets config and tokenizer of the base. shard_size: bytes of a file
    of a folder at most. force: replace the output. sync: wait until it is on the disk. progress:
    called with numbers of bytes written.
    """
    with model(archive, task, base) as found, durable.syncing(sync):
        tensors = list(found.tensors.values())
        writer = Writer(
            Path(output),
            [Entry(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors],
            {"format": "pt", "breadcrumbs.extracted": task},
            shard_size=shard_size,
            key="",
            force=force,
            resume=False,
            layout=composite.of(found),
        )
        try:
            for number, tensor in enumerate(tensors):
                for start in range(0, tensor.size, STEP):
                    part = np.empty(
                        items(tensor.dtype, min(STEP, tensor.size - start)), DTYPES[tensor.dtype]
                    )
                    tensor.read_into(start, part)
                    writer.write(number, start, part)
                    progress(part.nbytes)
            writer.close(lambda folder: _add(folder, found, os.fspath(archive), task))
        except BaseException:
            writer.discard()
            raise
        return sum(tensor.nbytes for tensor in tensors)


def _add(folder: Path, found: Checkpoint, archive: str, task: str) -> None:
    """Write into the folder of a task's model what it needs besides its weights."""
    beside.copy(found, folder)
    text = f"""# {card.cell(task)}

The model of one task, rebuilt by Breadcrumbs {__version__} from the base and the archive
{card.cell(Path(archive).name)}.
"""
    (folder / "README.md").write_text(text, encoding="utf-8", errors="replace")
