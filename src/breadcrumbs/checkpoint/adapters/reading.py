"""Adapters in the files of several programs, opened."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from breadcrumbs.checkpoint.adapters import lora_files, peft
from breadcrumbs.checkpoint.adapters.adapter import Adapter
from breadcrumbs.checkpoint.folder import open_file
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError


def open_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Return the adapter at a path or hub id; CheckpointError for what is none, or not understood.

    A folder as PEFT writes it or its weights, a file of kohya's scripts, a file or folder of
    diffusers.
    """
    source = alone(os.fspath(path))
    try:
        return of(source)
    except BaseException:
        source.close()
        raise


def of(source: Checkpoint) -> Adapter:
    """Return what the open matrices of an adapter mean; CheckpointError where that is not known."""
    assert source.adapter is not None
    if _is_of_peft(source.adapter):
        return peft.of(source.adapter.parent, source)
    return lora_files.of(source)


def alone(text: str) -> Checkpoint:
    """Return the matrices of the adapter at a path or hub id, which no base is under yet."""
    path, repo = Path(text).expanduser(), None
    if path.is_file():
        return _opened(path, text)
    if not path.is_dir():
        path, repo = _fetched(text)
    if not (path / peft.CONFIG).exists():
        file = lora_files.in_folder(path)
        if file is not None:
            return replace(_opened(file, text), folder=path, repo=repo)
    return replace(_opened(peft.weights(path, text), text), folder=path, repo=repo)


def config(source: Checkpoint) -> tuple[Path, ...]:
    """Return the file beside an adapter's matrices that says what they mean, if there is one."""
    assert source.adapter is not None
    beside = source.adapter.parent / peft.CONFIG
    return (beside,) if _is_of_peft(source.adapter) and beside.exists() else ()


def told(model: Checkpoint) -> Checkpoint:
    """Return what is open, as an adapter if its one file holds nothing else."""
    (path,) = model.files
    if _is_of_peft(path) and (path.parent / peft.CONFIG).exists():
        return replace(model, adapter=path, folder=path.parent)
    is_lora = bool(model.tensors) and lora_files.is_lora(model.tensors)
    return replace(model, adapter=path) if is_lora else model


def _opened(path: Path, label: str) -> Checkpoint:
    if not _is_of_peft(path) and path.suffix != ".safetensors":
        raise CheckpointError(
            f"{label}: is not a .safetensors file. Give the folder of an adapter."
        )
    return replace(open_file(path, label=label), adapter=path)


def _is_of_peft(path: Path) -> bool:
    return path.name.startswith(f"{peft.WEIGHTS}.")


def _fetched(text: str) -> tuple[Path, str]:
    """Return the folder in the cache of the hub's adapter, or the one that stands for a URL, and
    what it is called there."""
    from breadcrumbs.checkpoint import hub, opening, places

    if places.is_url(text):
        from breadcrumbs.checkpoint.places import folders

        path, url = folders.here(text)
        return (path if path.is_dir() else path.parent), url
    repo, revision = opening.hub_id(text, "adapter")
    folder, commit = hub.fetch_adapter(repo, revision)
    return folder, f"{repo}@{commit}"
