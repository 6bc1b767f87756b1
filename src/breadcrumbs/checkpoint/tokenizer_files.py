"""Tokens added to the files of a tokenizer, so that it knows all rows of an embedding.

    tokenizer.json              "added_tokens", or for pieces the vocabulary of its "model"
    tokenizer_config.json       "added_tokens_decoder", where it has one or stands alone
    added_tokens.json           where it is there

Libraries number added tokens in the order in which the file has them, from the size of the
vocabulary on, so they follow each other and the last of those that were there.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint.vocabulary import CONFIG, RULES, TOKENIZER, parsed
from breadcrumbs.errors import RecipeError

_ADDED = "added_tokens.json"
#: Algorithms whose vocabulary is a mapping, to which a piece can be added under its number.
_MAPPINGS = ("BPE", "WordPiece", "WordLevel")


def extend(
    folder: Path,
    ids: Mapping[str, int],
    added: Mapping[str, Mapping[str, bool]],
    pieces: Collection[str] = (),
) -> None:
    """Add tokens to the tokenizer in a folder.

    ids: their numbers, which follow those that are there. added: by token how it is found in a
    text; what is not said is as for a special token. pieces: those that are no added tokens, but
    pieces of another tokenizer.
    """
    data = parsed(folder / TOKENIZER)
    if isinstance(data, dict):
        _into_tokenizer(data, ids, added, pieces)
        _write(folder / TOKENIZER, data)
    said = parsed(folder / CONFIG)
    said = said if isinstance(said, dict) else {}
    decoder = said.get("added_tokens_decoder")
    if isinstance(decoder, dict) or not isinstance(data, dict):
        found = decoder if isinstance(decoder, dict) else {}
        mine = {str(n): _entry(t, added[t]) for t, n in ids.items() if t not in pieces}
        _write(folder / CONFIG, {**said, "added_tokens_decoder": {**found, **mine}})
    more = parsed(folder / _ADDED)
    if isinstance(more, dict):
        _write(folder / _ADDED, {**more, **{t: n for t, n in ids.items() if t not in pieces}})


def check(folder: Path | None, pieces: Collection[str], label: str) -> None:
    """Raise RecipeError if pieces of another tokenizer cannot be added to that in a folder."""
    data = parsed(folder / TOKENIZER) if pieces and folder is not None else None
    model = data.get("model") if isinstance(data, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if pieces and not isinstance(vocab, dict):
        raise RecipeError(
            f"{label}: pieces of another tokenizer cannot be added to its tokenizer, which is no"
            f" {TOKENIZER} of {', '.join(_MAPPINGS)}. Choose the vocabulary of one model"
            " (--vocabulary base, or its path)."
        )


def _into_tokenizer(
    data: dict[str, Any],
    ids: Mapping[str, int],
    added: Mapping[str, Mapping[str, bool]],
    pieces: Collection[str],
) -> None:
    rows = data.get("added_tokens")
    rows = rows if isinstance(rows, list) else []
    if pieces:  # then all have their number in the vocabulary, or it would shift the added ones
        vocab = data["model"]["vocab"]
        for row in rows:
            if isinstance(row, dict):
                vocab.setdefault(row.get("content"), row.get("id"))
        vocab.update(ids)
    rows += [{"id": n, **_entry(t, added[t])} for t, n in ids.items() if t not in pieces]
    data["added_tokens"] = rows


def _entry(token: str, rules: Mapping[str, bool]) -> dict[str, Any]:
    usual = {key: key == "special" for key in RULES}
    return {"content": token, **usual, **rules}


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
