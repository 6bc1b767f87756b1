"""The config beside a model's weights, as plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG = "config.json"
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


def ties(config: dict[str, Any]) -> bool:
    """Return whether the model that a transformers config is of ties its head to its embedding.

    Their default is that it does; a config says where it does not. A config of another kind ties
    where it says so. False without a config.
    """
    text = config.get("text_config")
    inner = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    said = config.get("tie_word_embeddings", inner)
    return said is not False if "model_type" in config else said is True
