"""A LoRA adapter of PEFT's -> a task file, which holds its two matrices as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import durable
from breadcrumbs.checkpoint.adapters import inserted, placing, reading, trained_on
from breadcrumbs.checkpoint.adapters.adapter import Adapter
from breadcrumbs.checkpoint.adapters.changes import Changes
from breadcrumbs.checkpoint.products import Factors
from breadcrumbs.checkpoint.sparse import BLOCK
from breadcrumbs.checkpoint.tensors import DTYPES, NAMES, Checkpoint, Tensor, shown
from breadcrumbs.errors import MismatchError, OutputError, RecipeError
from breadcrumbs.merging import opening
from breadcrumbs.taskfile import reader, writing
from breadcrumbs.taskfile.about import About, TaskTensor
from breadcrumbs.taskfile.encodings.exact import EXACT
from breadcrumbs.tasks.packing import MADE_BY, reference, weights


def from_adapter(
    base: opening.Source,
    adapter: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    name: str = "",
    author: str = "",
    license: str = "",
    extra: str = "error",
    rename: Sequence[str] = (),
    force: bool = False,
    sync: bool = True,
    note: Callable[[str], None] = lambda text: None,
    warn: Callable[[Sequence[str]], None] = lambda warnings: None,
) -> About:
    """Write the task file of a LoRA adapter; return what that says.

    adapter: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``, the hub id of
    one, or a LoRA file of kohya's scripts or diffusers. The fine-tuned weights that it stands for
    are the base's plus B A times its scale, in float32 and rounded once.
    extra: ``ignore`` leaves out tensors that the base lacks, such as a new head. rename: rules
    ``OLD=NEW`` of names of the adapter, a ``*`` in both for what is kept. sync: wait until the file
    is on the disk. note: is told what the user should know, warn what they should look at.
    """
    output = Path(output)
    if extra not in ("error", "ignore"):
        raise RecipeError(f"extra: {extra!r} is not possible. Give error or ignore.")
    writing.check_output(output, force)
    opened = reading.open_adapter(adapter)
    with opened.source, checkpoint.open(base, "base") as under:
        if reader.is_task(under):
            raise MismatchError(f"{under.label}: is a task file, which is not a base.")
        inserted.refuse_base(under)
        made = placing.changes(opened, under, rename)
        placing.check_whole(made, opened, list if extra == "error" else lambda names: [])
        for text in made.notes:
            note(text)
        warn(trained_on.another(opened, under, made.names))
        with durable.syncing(sync):
            return write(made, opened, output, name, author, license, force)


def whole(
    base: Checkpoint, source: Checkpoint, recipe: Mapping[str, Any]
) -> tuple[Changes, Adapter] | None:
    """Return what an open adapter changes, for `write`; None where a task file cannot hold it.

    recipe: of `packing`: of an adapter of which a part is left out, the matrices are not written.
    """
    parts = ("exclude", "only")
    if any(recipe.get(key) for key in parts) or recipe.get("extra", "error") != "error":
        return None
    adapter = reading.of(source)
    made = placing.changes(adapter, base, inserted.rules(recipe.get("rename", ()), adapter))
    plain = all(isinstance(product, Factors) for product in made.products.values())
    return (made, adapter) if plain and not made.magnitudes else None


def write(
    made: Changes,
    adapter: Adapter,
    output: Path,
    name: str = "",
    author: str = "",
    license: str = "",
    force: bool = False,
) -> About:
    """Write what an adapter changes to a task file; return what that says.

    MismatchError for what changes nothing, or is not of two matrices for each weight.
    """
    base = made.base
    tensors: dict[str, TaskTensor] = {}
    tables: dict[str, bytes] = {}
    parts: list[writing.Part] = []
    for mine, found in made.products.items():
        if mine in made.magnitudes or not isinstance(found, Factors):
            kind = "DoRA" if mine in made.magnitudes else adapter.config.get("peft_type", "other")
            raise MismatchError(
                f"{adapter.label}: is {kind}, and a task file of an adapter holds two matrices for"
                " each weight, which do not say that. Merge the adapter as it is, pack it by `task"
                " pack BASE ADAPTER --transform none`, or give a plain LoRA (PEFT's"
                " `merge_and_unload`, then `task export --to lora`)."
            )
        under = base.tensors[mine]
        dtype = "F64" if under.dtype == "F64" else "F32"
        tensors[mine] = writing.factored(mine, dtype, under.shape, found)
        parts += writing.factors(mine, found)
    for mine, tensor in made.whole.items():
        if tensor.shape != base.tensors[mine].shape:
            raise MismatchError(
                f"{adapter.label}: {shown(mine)} has shape {tensor.shape}, the base's"
                f" {base.tensors[mine].shape}. Was the vocabulary resized? Give a base with these"
                " tokens, or merge the adapter as it is."
            )
    blocks = {n: _changed(base.tensors[n], tensor) for n, tensor in made.whole.items()}
    blocks |= {n: _rows(base.tensors[n], *found) for n, found in made.rows.items()}
    for mine, found in blocks.items():
        kept = sum(row[0] for row, _ in found)
        if not kept:
            continue
        rows = [row for row, _ in found]
        dtype = made.whole[mine].dtype if mine in made.whole else NAMES[made.rows[mine][1].dtype]
        tensors[mine] = TaskTensor(mine, dtype, base.tensors[mine].shape, kept)
        tables[mine] = writing.table(rows)
        parts += writing.blocks(mine, rows, _bytes(found))
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
        untied=base.untied,
    )
    try:
        writing.write(output, said, tables, parts, force)
    except OSError as error:
        raise OutputError(
            f"{output}: {error.strerror or error}. Give another output, or check the disk."
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


def _rows(base: Tensor, indices: np.ndarray, rows: np.ndarray) -> list[tuple[writing.Row, bytes]]:
    """Return the blocks of what takes the place of some rows of a table of the base's."""
    width, found = base.shape[1], []
    at = (indices[:, None] * width + np.arange(width)).reshape(-1)
    values = rows.reshape(-1)
    for start in range(0, base.size, BLOCK):
        n = min(BLOCK, base.size - start)
        first, last = np.searchsorted(at, [start, start + n])
        mine = np.empty(n, DTYPES[base.dtype])
        base.read_into(start, mine)
        places, new = at[first:last] - start, values[first:last]
        differ = writing.differ(mine[places], new)
        places = places[differ].astype(np.uint32)
        found.append(writing.block(places, n, new[differ], None, EXACT))
    return found


def _bytes(made: list[tuple[writing.Row, bytes]]) -> Callable[[], Iterator[bytes]]:
    return lambda: (data for _, data in made)
