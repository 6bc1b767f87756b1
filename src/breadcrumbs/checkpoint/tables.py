"""Embeddings of tokens and heads over them: tables, whose rows stand for one token each."""

from __future__ import annotations

import re

#: By the end of their names.
_TABLES = re.compile(
    r"(^|\.)(shared|(word_|token_)?embeddings?|embed_tokens|tok_embeddings|embed_in|embed_out|wte"
    r"|lm_head(\.decoder)?|predictions\.decoder)(\.weight)?$"
)


def is_table(name: str) -> bool:
    """Return whether a tensor of that name is an embedding of tokens, or a head over them."""
    return _TABLES.search(name) is not None
