"""The tokens of a tokenizer and their numbers, from the files beside a model's weights.

    tokenizer.json                  its vocabulary and added tokens; else one of
    vocab.json, vocab.txt           numbers by token; one token a line
    tokenizer.model, spiece.model   the pieces of a SentencePiece model, numbered by their place
    with added_tokens.json, and the added_tokens_decoder of tokenizer_config.json

A token is the text by which these files call it. SentencePiece models of classes that number the
pieces in a way of their own (XLM-R, Pegasus) are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import configs

#: Bytes of a file that is looked into: the largest known (Gemma 3) has 33 million.
LARGEST = 64 << 20
TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
_PIECES = ("tokenizer.model", "spiece.model", "spm.model")
#: Classes whose numbers are the places of the pieces.
_BY_PLACE = ("Llama", "CodeLlama", "Gemma", "T5", "Albert", "XLNet", "DebertaV2", "Pretrained")
#: What says how an added token is found in a text.
RULES = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by their numbers.

    ids: by token its number. added: of tokens that were added to a tokenizer when it was made, by
    token how they are found in a text (`RULES`); all others are pieces of its own algorithm.
    whole: whether these are all; else the added ones alone, beside pieces that are not read.
    """

    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    whole: bool = True

    def below(self, rows: int) -> dict[str, int]:
        """Return the tokens that an embedding of so many rows has a row for."""
        return {token: number for token, number in self.ids.items() if number < rows}


def read(folder: Path | None) -> Vocabulary | None:
    """Return the vocabulary of the tokenizer in a folder; None if nothing of it can be read."""
    if folder is None:
        return None
    data = parsed(folder / TOKENIZER)
    model = data.get("model") if isinstance(data, dict) else None
    added: dict[str, dict[str, bool]] = {}
    ids: dict[str, int] = {}
    if isinstance(model, dict):
        ids = of_model(model.get("vocab"))
        rows = data.get("added_tokens")
        for row in rows if isinstance(rows, list) else ():
            _take(ids, added, row, row.get("id") if isinstance(row, dict) else None)
    if not ids:
        ids = _of_files(folder)
    whole = bool(ids)
    more = parsed(folder / "added_tokens.json")
    for token, number in more.items() if isinstance(more, dict) else ():
        if _is_number(number) and token not in ids:
            ids[token], added[token] = number, {}
    for number, row in listed(folder).items():
        if number.isdecimal() and len(number) < 10:
            _take(ids, added, row, int(number))
    return Vocabulary(ids, added, whole) if ids else None


def listed(folder: Path) -> dict[str, Any]:
    """Return the added tokens that the config of a tokenizer lists, by number as a text."""
    said = parsed(folder / CONFIG)
    found = said.get("added_tokens_decoder") if isinstance(said, dict) else None
    return found if isinstance(found, dict) else {}


def of_model(vocab: Any) -> dict[str, int]:
    """Return the numbers in the ``vocab`` of a tokenizer.json: a mapping, or unigrams in order."""
    if isinstance(vocab, list):
        return {row[0]: i for i, row in enumerate(vocab) if _is_unigram(row)}
    found = vocab if isinstance(vocab, dict) else {}
    return {token: number for token, number in found.items() if _is_number(number)}


def _take(ids: dict[str, int], added: dict[str, Any], row: Any, number: Any) -> None:
    """Add a token that was added, unless its number is known already."""
    token = row.get("content") if isinstance(row, dict) else None
    if isinstance(token, str) and _is_number(number):
        ids.setdefault(token, number)
        added.setdefault(token, {key: row[key] for key in RULES if isinstance(row.get(key), bool)})


def _of_files(folder: Path) -> dict[str, int]:
    """Return the numbers in a vocab.json, the lines of a vocab.txt, or the pieces of a model."""
    ids = of_model(parsed(folder / "vocab.json"))
    if ids:
        return ids
    text = _bytes(folder / "vocab.txt")
    if text:
        lines = text.decode("utf-8", errors="replace").splitlines()
        return {line: i for i, line in enumerate(lines)}
    said = parsed(folder / CONFIG)
    kind = said.get("tokenizer_class") if isinstance(said, dict) else None
    if isinstance(kind, str) and not kind.startswith(_BY_PLACE):
        return {}
    data = next(filter(None, (_bytes(folder / name) for name in _PIECES)), b"")
    try:
        return {piece: i for i, piece in enumerate(_pieces(data))}
    except (ValueError, IndexError):  # no SentencePiece model, such as a list of base64
        return {}


def _pieces(data: bytes) -> Iterator[str]:
    """Yield the pieces of a SentencePiece model: field 1 of the message, and field 1 of each."""
    for number, value in _fields(data):
        if number == 1:
            if not isinstance(value, bytes):
                raise ValueError("no pieces")
            yield next((v.decode() for n, v in _fields(value) if n == 1 and v is not None), "")


def _fields(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    """Yield the fields of a protobuf message; None for what is no bytes. ValueError, IndexError if
    it is none."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(data, at)
            yield number, None
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            yield number, None
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("cut off")
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError("no message")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("no number")


def parsed(path: Path) -> Any:
    """Return what a JSON file says; None if there is none, or it is too large or no JSON."""
    return configs.parsed(path, LARGEST)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes() if 0 <= configs.size(path) <= LARGEST else b""
    except OSError:
        return b""


def _is_unigram(row: Any) -> bool:
    return isinstance(row, list) and bool(row) and isinstance(row[0], str)


def _is_number(number: Any) -> bool:
    return type(number) is int and number >= 0
