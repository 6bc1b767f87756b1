"""Adapters in the files of several programs, opened."""

from __future__ import annotations

import os
from pathlib import Path

from breadcrumbs.checkpoint.adapters.adapter import Adapter
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError


def open_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Return the adapter at a path or hub id; CheckpointError for what is none, or not understood.

    A folder as PEFT writes it, a file of kohya's scripts, a file or folder of diffusers.
    """
    from breadcrumbs.checkpoint.adapters import lora_files, peft

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
    from breadcrumbs.checkpoint.adapters import lora_files

    if model.tensors and len(model.files) == 1 and lora_files.is_lora(model.tensors):
        raise CheckpointError(
            f"{model.label}: is an adapter, not a whole model. Make a task file of it, which merges"
            " like one: `breadcrumbs task import BASE ADAPTER -o t.safetensors`."
        )


def _fetched(text: str) -> Path:
    """Return the folder in the cache of the hub's adapter; CheckpointError if there is none."""
    from breadcrumbs.checkpoint import hub, opening

    return hub.fetch_adapter(*opening.hub_id(text, "adapter"))[0]
