"""A LoRA adapter of PEFT's -> a task file, which holds its two matrices as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from breadcrumbs import checkpoint, merging
from breadcrumbs.checkpoint import durable
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, OutputError, RecipeError, listing
from breadcrumbs.tasks import adapters, reader, writing
from breadcrumbs.tasks.about import BLOCK, About, TaskTensor
from breadcrumbs.tasks.adapters import Adapter
from breadcrumbs.tasks.encodings.exact import EXACT
from breadcrumbs.tasks.packing import MADE_BY, reference, weights


def from_adapter(
    base: merging.Source,
    adapter: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str = "",
    author: str = "",
    license: str = "",
    extra: str = "error",
    force: bool = False,
    sync: bool = True,
) -> About:
    """Write the task file of a LoRA adapter; return what that says.

    adapter: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``. The fine-tuned
    weights that it stands for are the base's plus B A times its scale, in float32 and rounded once.
    extra: ``ignore`` leaves out tensors that the base lacks, such as a new head. sync: wait until
    the file is on the disk.
    """
    output = Path(output)
    if extra not in ("error", "ignore"):
        raise RecipeError(f"extra: {extra!r} is not possible. Give error or ignore.")
    writing.check_output(output, force)
    opened = adapters.open_adapter(Path(adapter))
    with opened.source, checkpoint.open(base, "base") as under:
        if reader.is_task(under):
            raise MismatchError(f"{under.label}: is a task file, which is no base.")
        with durable.syncing(sync):
            return _write(under, opened, output, name, author, license, extra, force)


def _write(
    base: Checkpoint,
    adapter: Adapter,
    output: Path,
    name: str,
    author: str,
    license: str,
    extra: str,
    force: bool,
) -> About:
    names = adapters.fitted(adapter, base)
    lacking = adapters.lacking(adapter, names)
    if lacking and extra == "error":
        raise MismatchError(
            f"{adapter.label}: holds {listing(lacking, 3)}, which {base.label} lacks. Give"
            " --extra ignore to leave that out."
        )
    tensors: dict[str, TaskTensor] = {}
    tables: dict[str, bytes] = {}
    parts: list[writing.Part] = []
    for mine, found in adapters.factors(adapter, names, base).items():
        under = base.tensors[mine]
        dtype = "F64" if under.dtype == "F64" else "F32"
        tensors[mine] = writing.factored(mine, dtype, under.shape, found)
        parts += writing.factors(mine, found)
    for theirs in adapters.without_products(adapter, names, base):
        mine = names[theirs]
        made = _changed(base.tensors[mine], adapter.whole[theirs])
        kept = sum(row[0] for row, _ in made)
        if not kept:
            continue
        rows = [row for row, _ in made]
        tensor = adapter.whole[theirs]
        tensors[mine] = TaskTensor(mine, tensor.dtype, tensor.shape, kept)
        tables[mine] = writing.table(rows)
        parts += writing.blocks(mine, rows, _bytes(made))
    if not tensors:
        raise MismatchError(f"{adapter.label}: changes nothing of {base.label}.")
    own = name or os.path.basename(os.path.abspath(adapter.label))
    said = About(
        own,
        reference(base),
        "none",
        {},
        0,
        "lora",
        weights(base),
        {mine: tensors[mine] for mine in base.tensors if mine in tensors},
        author,
        license,
        MADE_BY,
    )
    try:
        writing.write(output, said, tables, parts, force)
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror or error}. Give another output, or look at the disk."
        ) from None
    return said


def _changed(base: Tensor, tensor: Tensor) -> list[tuple[writing.Row, bytes]]:
    """Return the blocks of what takes the place of the base's weights."""
    found = []
    for start in range(0, tensor.size, BLOCK):
        n = min(BLOCK, tensor.size - start)
        mine, theirs = np.empty(n, DTYPES[base.dtype]), np.empty(n, DTYPES[tensor.dtype])
        base.read_into(start, mine)
        tensor.read_into(start, theirs)
        at = np.flatnonzero(writing.differ(mine, theirs)).astype(np.uint32)
        found.append(writing.block(at, n, theirs[at], None, EXACT))
    return found


def _bytes(made: list[tuple[writing.Row, bytes]]) -> Callable[[], Iterator[bytes]]:
    return lambda: (data for _, data in made)
