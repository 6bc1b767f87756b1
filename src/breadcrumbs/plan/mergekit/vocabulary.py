"""Which tokens a model knows under which numbers, as far as its files tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import parts


def vocabulary(folder: Path | None) -> Any:
    """Return something that is equal for equal vocabularies; None if there is no tokenizer.

    From tokenizer.json the tokens and their numbers; else the bytes of the files that hold them.
    """
    if folder is None:
        return None
    try:
        data = json.loads((folder / "tokenizer.json").read_bytes())
        vocab = data["model"]["vocab"]
        if isinstance(vocab, list):  # of unigrams: a token's number is its place
            vocab = {token: number for number, (token, _) in enumerate(vocab)}
        return {**vocab, **{token["content"]: token["id"] for token in data["added_tokens"]}}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    names = [path.name for path in folder.iterdir() if path.is_file() and _holds(path.name)]
    found = {name: (folder / name).read_bytes() for name in sorted(names)}
    return found or None


def _holds(name: str) -> bool:
    """Whether a file holds the tokens of a tokenizer, or numbers for some."""
    about = name.startswith(("tokenizer_config", "special_tokens", "chat_template"))
    return parts.is_tokenizer(name) and not about and not name.endswith(".py")
