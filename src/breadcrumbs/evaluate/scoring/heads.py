"""Heads on disk: made once of a base and a task, read by every process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import cache

KIND = "heads"


def exists(where: Path | None, key: str) -> bool:
    """Whether there is a head of that digest (`Keys.head`), whole or not."""
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
