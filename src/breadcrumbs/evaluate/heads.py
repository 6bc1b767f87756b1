"""Heads on disk: made once of a base and a task, read by every process."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from breadcrumbs.evaluate.task import Task
from breadcrumbs.version import __version__

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite


def folder() -> Path:
    """Return where heads lie: ``$BREADCRUMBS_CACHE``, or the user's cache folder."""
    given = os.environ.get("BREADCRUMBS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "breadcrumbs"


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


def exists(cache: Path | None, key: str) -> bool:
    """Whether there is a head of that digest, whole or not."""
    return cache is not None and _path(cache, key).exists()


def _path(cache: Path, key: str) -> Path:
    return cache / "heads" / f"{key}.head"


def read(cache: Path | None, key: str) -> Mapping[str, Any] | None:
    """Return the tensors of a head, or None where there is none that is whole."""
    if cache is None or not exists(cache, key):
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = _path(cache, key).read_bytes()
        sum_, content = data[:32], data[32:]
        return load(content) if blake3(content).digest() == sum_ else None
    except (OSError, SafetensorError):
        return None


def write(cache: Path | None, key: str, head: Mapping[str, Any]) -> None:
    """Keep the tensors of a head, whole or not at all; a cache that takes nothing is no error."""
    if cache is None:
        return
    from safetensors.torch import save

    content = save({name: tensor.contiguous().cpu() for name, tensor in head.items()})
    path = _path(cache, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(blake3(content).digest() + content)
        os.replace(temporary, path)
    except OSError:
        return
