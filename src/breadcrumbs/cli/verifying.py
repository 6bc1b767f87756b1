"""Whether files still are what was written, by the digests that they carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint, machine
from breadcrumbs.archives import archive as archives
from breadcrumbs.checkpoint import digests
from breadcrumbs.checkpoint.safetensors import open_safetensors, read_header
from breadcrumbs.errors import CheckpointError
from breadcrumbs.store import Store, files
from breadcrumbs.taskfile import reader


def verify(path: str) -> int:
    """Read all weights of a checkpoint, task file, archive or store; return the number of tensors.

    CheckpointError names the first tensor or file that is not what was written, or says that there
    is no digest to verify.
    """
    if files.is_store(path):
        with Store.open(path) as store:
            store.check_files()
            return sum(len(store.task(task).tensors) for task in store.ledger.history().tasks())
    with checkpoint.open(path) as opened:
        if reader.is_task(opened):
            reader.of(opened).verify()
        elif archives.is_archive(opened):
            archives.of(opened).verify()
        else:
            _check_files(opened.files, path)
        return len(opened.tensors)


def _check_files(files: tuple[Path, ...], path: str) -> None:
    threads = machine.available_cores()
    for file in files:
        if file.suffix == ".json":
            continue
        if file.suffix != ".safetensors":
            raise CheckpointError(f"{file}: has no digest to verify; only .safetensors have one.")
        with open_safetensors(file) as one:
            digests.check(one, str(file), threads)
    _check_index(files)


def _check_index(files: tuple[Path, ...]) -> None:
    """Raise CheckpointError for a file that is whole, but not the one of this index."""
    folder = files[0].parent
    for index in folder.glob("*.safetensors.index*.json"):
        said = _said(index)
        for file in files:
            digest = said.get(file.name)
            if digest is not None and read_header(file).metadata.get(digests.DIGEST) != digest:
                raise CheckpointError(
                    f"{file}: is intact, but not the file that {index.name} was written with. Parts"
                    " of two models are mixed; copy, download or merge it again."
                )


def _said(index: Path) -> dict[str, Any]:
    try:
        found = json.loads(index.read_bytes())["metadata"][digests.FILES]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
