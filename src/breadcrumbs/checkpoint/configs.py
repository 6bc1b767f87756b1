"""The config beside a model's weights, as plain data."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

CONFIG = "config.json"
#: Those that may name the folder that a model was loaded from.
PLACED = (CONFIG, "tokenizer_config.json", "model_index.json")
_LARGEST = 16 << 20


def read(folder: Path | None, name: str = CONFIG) -> dict[str, Any]:
    """Return what a JSON file of a model's folder says; nothing where there is none or it is bad.

    What is broken there is copied as it is, and is not ours to judge.
    """
    if folder is None:
        return {}
    path = folder / name
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def size(path: Path) -> int:
    """Return the bytes of a regular file; -1 if there is none."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):
        return -1


def parsed(path: Path, most: int) -> Any:
    """Return what a JSON file says; None if there is none, or it is larger than so many bytes, or
    no JSON."""
    if not 0 <= size(path) <= most:
        return None
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, MemoryError):
        return None


def without_paths(path: Path) -> None:
    """Leave out of a config that was copied from which folder of some disk it was loaded."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        data = json.loads(path.read_text(encoding="utf-8"))
        if _forget_paths(data):
            path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _forget_paths(data: Any) -> bool:
    """Leave out what a config and those in it name as a path; return whether there was one."""
    found = False
    for key, value in list(data.items()) if isinstance(data, dict) else ():
        is_place = key in ("_name_or_path", "name_or_path") and isinstance(value, str)
        if is_place and os.path.isabs(value):
            del data[key]
            found = True
        elif key.endswith("_config"):
            found |= _forget_paths(value)
    return found


def ties(config: dict[str, Any]) -> bool:
    """Return whether the model that a transformers config is of ties its head to its embedding.

    Their default is that it does; a config says where it does not. A config of another kind ties
    where it says so. False without a config.
    """
    text = config.get("text_config")
    inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    said = config.get("tie_word_embeddings", inner)
    return said is not False if "model_type" in config else said is True
