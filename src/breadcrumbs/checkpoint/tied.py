"""Tied tensors: which they are, and a base that gives them apart.

`transformers` makes one tensor of embeddings and head, and stores it once, where a config says so.
What changes one of them alone needs a tensor of its own for the other, which begins as the same
weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import configs
from breadcrumbs.checkpoint.tensors import DTYPES, Bytes, Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, suggestion

#: Embeddings of tokens by the end of their name, those that others are tied to first.
_TABLES = (
    "shared.weight",
    "decoder.embed_tokens.weight",
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tokens_embed.weight",
)
#: Classes with a head that is called otherwise than ``lm_head``, by the end of their name.
_HEADS = {
    "WhisperForConditionalGeneration": "proj_out.weight",
    "GPTNeoXForCausalLM": "embed_out.weight",
}
#: Of models that fill in masked tokens: head and its bias, and what the bias is tied to.
_MASKED = {
    "cls.predictions.decoder": ("bert", "ernie", "deberta", "roformer", "mobilebert", "fnet"),
    "lm_head.decoder": (
        "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer",
        "roberta-prelayernorm", "data2vec-text", "ibert",
    ),
    "predictions.decoder": ("albert",),
    "vocab_projector": ("distilbert",),
    "generator_lm_head": ("electra",),
}  # fmt: skip
#: How names begin where a model has a head around it, if no class is named.
_WITH_HEAD = ("model.", "transformer.", "language_model.", "gpt_neox.", "shared.")
#: T5, whose output is multiplied by this power of ``d_model`` before a head that is tied.
_SCALED, _POWER = ("t5", "longt5", "switch_transformers"), -0.5


def ties(base: Checkpoint) -> dict[str, str]:
    """Return what the base's config makes one tensor: by name, the name of what it is tied to.

    Those that the base does not store, or stores with the same bytes. Nothing where there is no
    config, or it says that they are two, or the model has no head.
    """
    config = configs.read(base.folder)
    kind = str(next(iter(config.get("architectures") or []), ""))
    tie = config.get("tie_word_embeddings")
    inner = config.get("text_config")
    if tie is None and isinstance(inner, dict):
        tie = inner.get("tie_word_embeddings")
    table = next((n for end in _TABLES for n in base.tensors if f".{n}".endswith(f".{end}")), "")
    if not table or tie is False or not (kind or (tie and table.startswith(_WITH_HEAD))):
        return {}
    found: dict[str, str] = {}
    if table.endswith("shared.weight"):
        stem = table.removesuffix("shared.weight")
        found = dict.fromkeys(
            (f"{stem}{s}.embed_tokens.weight" for s in ("encoder", "decoder")), table
        )
    found |= _head(config, kind, table)
    return {
        name: other
        for name, other in found.items()
        if name not in base.tensors or equal(base.tensors[name], base.tensors[other])
    }


def is_table(name: str) -> bool:
    """Return whether a tensor is a table of embeddings that a head may be tied to, by its name."""
    return any(f".{name}".endswith(f".{end}") for end in _TABLES)


def _head(config: Mapping[str, Any], kind: str, table: str) -> dict[str, str]:
    """Return the head of a class, and what else is tied with it."""
    if kind.endswith(("ForMaskedLM", "ForPreTraining")):
        model = str(config.get("model_type"))
        head = next((head for head, models in _MASKED.items() if model in models), "")
        bias = f"{head.rpartition('.')[0]}.bias"
        if not head:
            return {}
        return {f"{head}.weight": table} | ({f"{head}.bias": bias} if "." in head else {})
    if kind in _HEADS:
        return {_HEADS[kind]: table}
    if kind and not kind.endswith(("LM", "LMHeadModel", "ForConditionalGeneration", "Generation")):
        return {}
    under = "language_model." if table.startswith("language_model.model.") else ""
    return {f"{under}lm_head.weight": table}


def head_scale(base: Checkpoint, name: str) -> float:
    """Return what weights are multiplied by to be those of a head of its own.

    1 but for T5, which scales the output before a tied head and not before one of its own.
    """
    config = configs.read(base.folder)
    if config.get("model_type") in _SCALED and name == "lm_head.weight":
        with suppress(TypeError, ValueError, ZeroDivisionError, KeyError):
            return float(config["d_model"]) ** _POWER
    return 1.0


@dataclass(frozen=True, slots=True)
class ScaledBytes:
    """The bytes of a tensor times a factor, rounded to its dtype."""

    tensor: Tensor
    factor: float

    def read_into(self, start: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``start`` on."""
        dtype = DTYPES[self.tensor.dtype]
        first, last = start // dtype.itemsize, -(-(start + len(out)) // dtype.itemsize)
        values = np.empty(last - first, dtype)
        self.tensor.read_into(first, values)
        found = (values.astype(np.float64) * self.factor).astype(dtype).view(np.uint8)
        skip = start - first * dtype.itemsize
        np.frombuffer(out, np.uint8)[:] = found[skip : skip + len(out)]


def untied(base: Checkpoint, pairs: Mapping[str, str]) -> Checkpoint:
    """Return the base with tensors of their own: by name, the name of what each was tied to.

    A name that the base lacks gets the bytes of the other, which are read where they lie; one that
    it stores stays as it is. `Checkpoint.untied` has the pairs, those of earlier calls too. Give
    all `ties`: a config that says that heads are apart says it of each of them. MismatchError where
    the base lacks what a name is tied to.
    """
    if not pairs:
        return base
    tensors = dict(base.tensors)
    for name, other in pairs.items():
        if other not in base.tensors:
            raise MismatchError(
                f"{base.label}: has no tensor {other!r} that {name!r} could be tied to."
                f"{suggestion(other, base.tensors)}"
            )
        mine = base.tensors[other]
        scaled = head_scale(base, name) != 1
        if name not in tensors or (scaled and equal(tensors[name], mine)):
            tensors[name] = apart(base, name, mine)
    return replace(
        base, tensors=tensors, untied={**base.untied, **pairs}, stored=base.stored or base
    )


def apart(base: Checkpoint, name: str, tensor: Tensor) -> Tensor:
    """Return what a tensor is under a name of its own that is tied to it in the base."""
    factor = head_scale(base, name)
    source: Bytes = tensor.source if factor == 1 else ScaledBytes(tensor, factor)
    return replace(tensor, name=name, source=source)


def stored(base: Checkpoint) -> Checkpoint:
    """Return the base with the tensors alone that its files hold, as it was before `untied`."""
    return base.stored or base


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same bytes, reading until the first difference."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    step = 1 << 20
    for start in range(0, a.nbytes, step):
        pair = np.empty((2, min(step, a.nbytes - start)), np.uint8)
        for row, tensor in zip(pair, (a, b), strict=True):
            tensor.source.read_into(start, row.data)
        if not np.array_equal(pair[0], pair[1]):
            return False
    return True
