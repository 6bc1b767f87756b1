"""What a router sends rows to: models, or task files on the merged model or on the base."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.taskfile import KEY, view
from breadcrumbs.taskfile.reader import TaskFile


def opened(path: str, base: str, merged: Checkpoint | Mapping[str, Any], hash_: str) -> Checkpoint:
    """Return an expert, open: of a task file, on whichever of the two models it was packed with.

    base: a path. merged: the merged model, whose hash is ``hash_``.
    """
    source = checkpoint.open(path)
    if KEY not in source.metadata:
        source.close()
        return view.open_model(base, path)
    file = TaskFile.open(path)
    source.close()
    if file.base.hash != hash_:
        file.close()
        return view.open_model(base, path)
    return view.opened(checkpoint.open(merged), file)


def identity(path: str, base: str, merged: Checkpoint, hash_: str) -> tuple[str, int]:
    """Return the hash of an expert's weights, and how many numbers it is besides the merged model.

    Of a task file what it keeps, of a model all.
    """
    with opened(path, base, merged, hash_) as model:
        found = model_hash(model)
        whole = sum(math.prod(tensor.shape) for tensor in model.tensors.values())
    with checkpoint.open(path) as source:
        if KEY not in source.metadata:
            return found, whole
        file = TaskFile.open(path)
        numbers = 0
        for tensor in file.tensors.values():
            last = tensor.shape[-1] if tensor.shape else 1
            sides = math.prod(tensor.shape) // max(last, 1) + last
            numbers += tensor.rank * sides if tensor.rank else tensor.kept
        file.close()
    return found, numbers
