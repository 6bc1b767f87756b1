"""Adapters: two thin matrices for each weight that changes, in the files of several programs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import CheckpointError

ADVICE = "Merge it into its model with PEFT (`merge_and_unload`), and pack that."
#: The matrices A (rank, in) and B (out, rank), as the files have them.
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Adapter:
    """An open adapter, under its own names of the weights that it changes.

    kind: whose format it is: ``PEFT``, ``kohya`` or ``diffusers``. products: A and B. whole: what
    takes the place of the base's tensors. scales: of the products. rows: rows of tables, and which
    they are. stacks: A and B of parameters that are stacks of matrices, by module. config: what it
    says of itself. trained_on: the base, as far as it says.
    """

    label: str
    kind: str
    products: Mapping[str, Pair]
    whole: Mapping[str, Tensor]
    source: Checkpoint = field(repr=False)
    scales: Mapping[str, float] = field(default_factory=dict)
    rows: Mapping[str, tuple[Tensor, list[int]]] = field(default_factory=dict)
    stacks: Mapping[str, list[Pair]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""


def open_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Return the adapter at a path or hub id; CheckpointError for what is none, or not understood.

    A folder as PEFT writes it, a file of kohya's scripts, a file or folder of diffusers.
    """
    from breadcrumbs.tasks import lora_files, peft

    text = os.fspath(path)
    folder = Path(text).expanduser()
    if folder.is_file() and folder.name.startswith(f"{peft.WEIGHTS}."):
        folder, text = folder.parent, str(Path(text).parent)
    if folder.is_file():
        return lora_files.open_lora(folder, text)
    if not folder.is_dir():
        folder = _fetched(text)
    if not (folder / peft.CONFIG).exists():
        file = lora_files.in_folder(folder)
        if file is not None:
            return lora_files.open_lora(file, text)
    return peft.open_folder(folder, text)


def refuse(model: Checkpoint) -> None:
    """Raise CheckpointError for an open file that is an adapter, and no model or task file."""
    from breadcrumbs.tasks import lora_files

    if model.tensors and len(model.files) == 1 and lora_files.is_lora(model.tensors):
        raise CheckpointError(
            f"{model.label}: is an adapter, not a whole model. Make a task file of it, which merges"
            " like one: `breadcrumbs task import BASE ADAPTER -o t.safetensors`."
        )


def _fetched(text: str) -> Path:
    """Return the folder in the cache of the hub's adapter; CheckpointError if there is none."""
    from breadcrumbs import checkpoint
    from breadcrumbs.checkpoint import hub

    return hub.fetch_adapter(*checkpoint.hub_id(text, "adapter"))[0]
