"""What a checkpoint holds, from its headers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint, hashing
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.errors import CheckpointError
from breadcrumbs.plan_statistics import KEY


def inspect(path: str, *, with_hash: bool = False) -> dict[str, Any]:
    """Return plain data: files, tensors, counts by dtype, and what the file says of itself.

    merged_from: where a merged model came from. statistics: what the arrays are, if they are any.
    """
    with checkpoint.open(path) as opened:
        digests = _digests(opened.files) if with_hash else {}
        tensors = [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "bytes": t.nbytes}
            for t in opened.tensors.values()
        ]
        dtypes = Counter[str]()
        for tensor in opened.tensors.values():
            dtypes[tensor.dtype] += tensor.size
        files = [
            {
                "file": file.name,
                "bytes": file.stat().st_size,
                **({"blake3": digests[file]} if with_hash else {}),
            }
            for file in opened.files
        ]
        return {
            "path": opened.repo or opened.label,
            "files": files,
            "parameters": sum(t.size for t in opened.tensors.values() if t.is_weight),
            "bytes": sum(t.nbytes for t in opened.tensors.values()),
            "entries_by_dtype": dict(dtypes),
            "merged_from": _provenance(opened.files),
            "statistics": _parsed(opened.metadata.get(KEY)),
            "tensors": tensors,
        }


def _digests(files: tuple[Path, ...]) -> dict[Path, str]:
    digests = hashing.FileDigests(files)
    for task in digests.tasks():
        task()
    return digests.digests


def _provenance(files: tuple[Path, ...]) -> Any:
    """Return the recipe and inputs that a file of this program carries in its header."""
    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            return _parsed(read_header(file).metadata.get("breadcrumbs"))
        except CheckpointError:
            return None
    return None


def _parsed(text: str | None) -> Any:
    """Return what JSON in a file's metadata says; None if nothing, or something else."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
