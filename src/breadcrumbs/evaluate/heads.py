"""Heads on disk: made once of a base and a task, read by every process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from breadcrumbs import cache
from breadcrumbs.evaluate.task import Task
from breadcrumbs.version import __version__

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite

KIND = "heads"


def digest(suite: Suite, task: Task, base: str, precision: str) -> str:
    """Return a digest of all that a head is made of. base: the hash of the base's weights."""
    made_of = {
        "version": __version__,
        "base": base,
        "foundation": [suite.foundation.kind, dict(suite.foundation.settings)],
        "labels": task.labels,
        "head": dict(task.head),
        "rows": task.rows("train").digest if suite.foundation.trains_heads else None,
        "precision": precision,
    }
    return blake3(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()


def exists(where: Path | None, key: str) -> bool:
    """Whether there is a head of that digest, whole or not."""
    return where is not None and cache.place(where, KIND, key).exists()


def read(where: Path | None, key: str) -> Mapping[str, Any] | None:
    """Return the tensors of a head, or None where there is none that is whole."""
    content = cache.read(where, KIND, key)
    if content is None:
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError:
        return None


def write(where: Path | None, key: str, head: Mapping[str, Any]) -> None:
    """Keep the tensors of a head."""
    if where is None:
        return
    from safetensors.torch import save

    content = save({name: tensor.contiguous().cpu() for name, tensor in head.items()})
    cache.write(where, KIND, key, content)
