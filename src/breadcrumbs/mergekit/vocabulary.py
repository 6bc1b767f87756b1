"""Which tokens a model knows under which numbers, as far as its files tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def vocabulary(folder: Path | None) -> Any:
    """Return something that is equal for equal vocabularies; None if there is no tokenizer.

    From tokenizer.json the tokens and their numbers; else the bytes of a file that holds them.
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
    for name in ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"):
        if (folder / name).is_file():
            return name, (folder / name).read_bytes()
    return None
