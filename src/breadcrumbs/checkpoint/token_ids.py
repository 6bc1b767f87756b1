"""The numbers of the tokens that begin, end and fill a text, which configs repeat for a tokenizer.

    config.json, generation_config.json     "bos_token_id", "eos_token_id", "pad_token_id"

An output with another model's tokenizer takes them from that model, or generation never stops.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import vocabulary

KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
CONFIG, GENERATION = "config.json", "generation_config.json"
#: All that configs call numbers of tokens, such as ``image_token_index``.
_OF_TOKEN = re.compile(r"(^|_)token_(id|ids|index)$")


def take(output: Path, source: Path) -> None:
    """Set the numbers in the configs of an output to those of the model in the folder ``source``.

    Those of its own file of the same name, else of the other one, else of its tokenizer. What the
    model has none of is removed, since the number would be that of another token.
    """
    said = {name: _read(source / name) for name in (CONFIG, GENERATION)}
    spare = {**of_tokenizer(source), **_own(said[CONFIG]), **_own(said[GENERATION])}
    for name, other in said.items():
        found, inner = _read(output / name), {**spare, **_own(other)}
        if found is None and (name == CONFIG or other is None):
            continue
        before = json.dumps(found)
        found = {} if found is None else found
        if name == GENERATION or "model_type" in found or any(key in found for key in KEYS):
            _set(found, inner, whole=other is not None or bool(inner))
        for key, value in found.items():
            if key.endswith("_config") and isinstance(value, dict):
                theirs = (other or {}).get(key)
                own = _own(theirs if isinstance(theirs, dict) else None)
                _set(value, {k: v for k, v in {**inner, **own}.items() if k in value or k in own})
        if json.dumps(found) != before:
            (output / name).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def move(output: Path, moved: Mapping[int, int]) -> None:
    """Set the numbers of tokens in the configs of an output to new ones. moved: by the old ones."""
    for name in (CONFIG, GENERATION) if moved else ():
        found = _read(output / name)
        if found is not None and (text := json.dumps(_moved(found, moved))) != json.dumps(found):
            data = json.dumps(json.loads(text), indent=2)
            (output / name).write_text(data + "\n", encoding="utf-8")


def _moved(data: Any, moved: Mapping[int, int], of_token: bool = False) -> Any:
    if isinstance(data, dict):
        return {k: _moved(v, moved, bool(_OF_TOKEN.search(k))) for k, v in data.items()}
    if isinstance(data, list) and of_token:
        return [_moved(value, moved, True) for value in data]
    return moved.get(data, data) if of_token and type(data) is int else data


def of_tokenizer(folder: Path) -> dict[str, int]:
    """Return the numbers that a tokenizer's files say: of the tokens that its config names."""
    said = _read(folder / "tokenizer_config.json") or {}
    more = _read(folder / "special_tokens_map.json") or {}
    known = vocabulary.read(folder)
    numbers = known.ids if known is not None else {}
    found = {}
    for key in KEYS:
        token = said.get(key[:-3], more.get(key[:-3]))
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in numbers:
            found[key] = numbers[token]
    return found


def _set(data: dict[str, Any], numbers: dict[str, Any], whole: bool = False) -> None:
    """Set numbers in a config. whole: whether others than these are removed."""
    for key in KEYS:
        if key in numbers:
            data[key] = numbers[key]
        elif whole:
            data.pop(key, None)


def _own(data: dict[str, Any] | None) -> dict[str, Any]:
    """Return the numbers that a config has itself."""
    return {key: data[key] for key in KEYS if data and data.get(key) is not None}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
