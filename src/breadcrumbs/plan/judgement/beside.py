"""Small files beside the weights, read with limits: broken or hostile ones say nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import configs
from breadcrumbs.checkpoint.beside import with_own_folder
from breadcrumbs.checkpoint.configs import size
from breadcrumbs.checkpoint.files import same_bytes
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.errors import CheckpointError
from breadcrumbs.plan.plan import Plan

#: Bytes of a config at most: one of 1,000 labels has 60,000.
CONFIG = 4 << 20
#: Objects and lists in each other at most, in a config.
_DEPTH = 20


def others(plan: Plan) -> Iterator[tuple[Checkpoint, Path]]:
    """Yield the sources in folders other than the base's, each once, with the folder."""
    seen = {os.path.realpath(folder) for folder in (folder_of(plan.base),) if folder}
    for source in map(with_own_folder, plan.origins):
        if source.folder is None or source.cut is not None:
            continue
        real = os.path.realpath(source.folder)
        if real not in seen:
            seen.add(real)
            yield source, source.folder


def folder_of(source: Checkpoint) -> Path | None:
    """Return the folder of a source; of a stack, that of its first part.

    Of an adapter in a base its own, if a tokenizer lies there.
    """
    return with_own_folder(source).folder or (source.parts[0].folder if source.parts else None)


def parsed(path: Path, most: int = CONFIG) -> Any:
    """Return what a JSON file says; None if there is none, or it is too large or no JSON."""
    return configs.parsed(path, most)


def trouble(path: Path) -> str:
    """Return why nothing can be told from a JSON file that is there, in words; or empty."""
    number = size(path)
    if number < 0:
        return ""
    if number > CONFIG:
        return f"is larger than {CONFIG >> 20} MB"
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError, MemoryError):
        return "is not JSON"
    if not isinstance(found, dict):
        return "is not a JSON object"
    return "" if _is_shallow(found, _DEPTH) else f"has more than {_DEPTH} levels"


def mapping(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where `parsed` finds none, or a deep one."""
    found = parsed(path)
    return found if isinstance(found, dict) and _is_shallow(found, _DEPTH) else {}


def _is_shallow(value: Any, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left > 0 and all(_is_shallow(one, left - 1) for one in inner)


def same(a: Path, b: Path) -> bool:
    """Return whether two files hold the same bytes, reading until the first difference."""
    try:
        return size(a) == size(b) and same_bytes(a, b)
    except CheckpointError:
        return False
