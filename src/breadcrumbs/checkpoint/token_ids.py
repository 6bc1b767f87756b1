"""The numbers of the tokens that begin, end and fill a text, which configs repeat for a tokenizer.

    config.json, generation_config.json     "bos_token_id", "eos_token_id", "pad_token_id"

An output with another model's tokenizer takes them from that model, or generation never stops.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
CONFIG, GENERATION = "config.json", "generation_config.json"


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


def of_tokenizer(folder: Path) -> dict[str, int]:
    """Return the numbers that a tokenizer's files say: of the tokens that its config names."""
    said = _read(folder / "tokenizer_config.json") or {}
    more = _read(folder / "special_tokens_map.json") or {}
    numbers = _numbers(folder, said)
    found = {}
    for key in KEYS:
        token = said.get(key[:-3], more.get(key[:-3]))
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in numbers:
            found[key] = numbers[token]
    return found


def _numbers(folder: Path, said: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of the tokens, as far as JSON tells."""
    found: dict[str, int] = {}
    for data in (_read(folder / "vocab.json"), _read(folder / "added_tokens.json")):
        found |= {k: v for k, v in (data or {}).items() if isinstance(v, int)}
    data = _read(folder / "tokenizer.json") or {}
    model = data.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        found |= {k: v for k, v in vocab.items() if isinstance(v, int)}
    elif isinstance(vocab, list):  # of unigrams: a token's number is its place
        found |= {p[0]: i for i, p in enumerate(vocab) if isinstance(p, list) and p}
    added = data.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(token.get("id"), int):
            found[str(token.get("content"))] = token["id"]
    listed = said.get("added_tokens_decoder")
    for number, token in listed.items() if isinstance(listed, dict) else ():
        if isinstance(token, dict) and number.isdecimal():
            found[str(token.get("content"))] = int(number)
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
