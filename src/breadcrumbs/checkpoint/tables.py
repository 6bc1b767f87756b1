"""Embeddings of tokens and heads over them: tables, whose rows stand for one token each.

By the end of their names, with ``.weight`` after it or not.
"""

from __future__ import annotations

from collections.abc import Collection

#: Embeddings that heads are tied to, those that others are tied to first.
EMBEDDINGS = (
    "shared",
    "decoder.embed_tokens",
    "embed_tokens",
    "wte",
    "embed_in",
    "word_embeddings",
    "tokens_embed",
    "tok_embeddings",
    "word_embedding",
    "transformer.w",
    "backbone.embeddings",
    "transformer.embeddings",
    "rwkv.embeddings",
    "backbone.embedding",
)
#: Other embeddings, and heads.
_OTHERS = (
    *("embeddings", "embedding", "token_embeddings", "token_embedding"),
    *("embed_out", "lm_head", "lm_head.decoder", "predictions.decoder"),
)
#: What their names end in, with a part of the name.
_ENDS = tuple(f".{end}" for end in (*EMBEDDINGS, *_OTHERS))


def is_table(name: str) -> bool:
    """Return whether a tensor of that name is an embedding of tokens, or a head over them."""
    return f".{name.removesuffix('.weight')}".endswith(_ENDS)


def is_embedding(name: str) -> bool:
    """Return whether a tensor is a table of embeddings that a head may be tied to, by its name."""
    return bool(first([name]))


def first(names: Collection[str]) -> str:
    """Return the embeddings that others are tied to, by their name; empty if there are none."""
    return next((n for end in EMBEDDINGS for n in names if _ends(n, f"{end}.weight")), "")


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")
