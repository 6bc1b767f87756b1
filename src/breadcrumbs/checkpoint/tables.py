"""Embeddings of tokens and heads over them: tables, whose rows stand for one token each.

By the end of their names, with ``.weight`` after it or not.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from breadcrumbs.checkpoint import heads
from breadcrumbs.checkpoint.tensors import Checkpoint

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
#: Biases of heads: beside a head's matrix, or alone where that is tied.
_BIAS = re.compile(
    r"(^|\.)(predictions|lm_head|(lm_head|predictions)\.decoder|decoder|vocab_projector"
    r"|generator_lm_head|pred_layer\.proj|embed_out|output_projection)\.bias$"
)
#: Of BART and its like, (1, tokens).
_FINAL = "final_logits_bias"


def is_table(name: str) -> bool:
    """Return whether a tensor of that name is an embedding of tokens, or a head over them."""
    return f".{name.removesuffix('.weight')}".endswith(_ENDS)


def by_token(model: Checkpoint) -> dict[str, int]:
    """Return what a model has a row of for each token: by name, the axis along which they lie.

    Its embedding, and all tables, heads and biases of heads of as many rows. Nothing where there is
    no embedding, or it is that of a part of a pipeline.
    """
    shapes = {n: t.shape for n, t in model.tensors.items() if t.is_weight or n.endswith(_FINAL)}
    tables = {n: s for n, s in shapes.items() if len(s) == 2 and is_table(n)}
    inner = [n for n in tables if not heads.is_head(n)] or list(tables)
    if not inner or (model.layout is not None and model.layout.component(inner[0])):
        return {}
    name = first(inner) or max(inner, key=lambda n: tables[n][0])
    rows, found = tables[name][0], {}
    for other, shape in shapes.items():
        matrix = len(shape) == 2 and shape[0] == rows
        vector = shape == (rows,)
        if (matrix and (is_table(other) or heads.is_head(other))) or (
            vector and (_BIAS.search(other) or _is_beside(other, tables))
        ):
            found[other] = 0
        elif shape == (1, rows) and other.endswith(_FINAL):
            found[other] = 1
    return found


def _is_beside(name: str, tables: Collection[str]) -> bool:
    """Return whether a bias is that of a head whose matrix is one of the tables."""
    stem = name.removesuffix(".bias")
    return stem != name and f"{stem}.weight" in tables


def is_embedding(name: str) -> bool:
    """Return whether a tensor is a table of embeddings that a head may be tied to, by its name."""
    return bool(first([name]))


def first(names: Collection[str]) -> str:
    """Return the embeddings that others are tied to, by their name; empty if there are none."""
    return next((n for end in EMBEDDINGS for n in names if _ends(n, f"{end}.weight")), "")


def _ends(name: str, end: str) -> bool:
    return f".{name}".endswith(f".{end}")
