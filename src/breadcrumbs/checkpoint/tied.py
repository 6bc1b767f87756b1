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

from breadcrumbs.checkpoint import configs, heads, tables
from breadcrumbs.checkpoint.tensors import DTYPES, Bytes, Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, suggestion

#: T5, whose output is multiplied by this power of ``d_model`` before a head that is tied.
_SCALED = ("t5", "longt5", "switch_transformers", "umt5", "udop")
_POWER = -0.5


def ties(base: Checkpoint) -> dict[str, str]:
    """Return what the base's config makes one tensor: by name, the name of what it is tied to.

    Those that the base does not store, or stores with the same bytes. Nothing where there is no
    config, or it says that they are two, or the model has no head.
    """
    return _ties(base) or {}


def unknown_head(base: Checkpoint) -> str:
    """Return the class of a base if its embeddings may be tied in a way that is not known here."""
    return _class(configs.read(base.folder)) if _ties(base) is None else ""


def _class(config: Mapping[str, Any]) -> str:
    return str(next(iter(config.get("architectures") or []), ""))


def _ties(base: Checkpoint) -> dict[str, str] | None:
    config = configs.read(base.folder)
    kind = _class(config)
    tie = config.get("tie_word_embeddings")
    inner = config.get("text_config")
    if tie is None and isinstance(inner, dict):
        tie = inner.get("tie_word_embeddings")
    table = tables.first(base.tensors)
    if not table or tie is False or not (kind or (tie and heads.by_names(table))):
        return {}
    head = heads.tied(base.tensors, kind, table)
    if head is None:
        return None
    return {
        name: other
        for name, other in (heads.copies(base.tensors, table) | head).items()
        if other in base.tensors
        and (name not in base.tensors or equal(base.tensors[name], base.tensors[other]))
    }


def head_scale(base: Checkpoint, name: str) -> float:
    """Return what weights are multiplied by to be those of a head of its own.

    1 but for T5, which scales the output before a tied head and not before one of its own. (Of T5
    1.1 transformers 5 says tied, and that nothing is scaled.)
    """
    config = configs.read(base.folder)
    scaled = (
        config.get("model_type") in _SCALED and config.get("scale_decoder_outputs") is not False
    )
    if scaled and name == "lm_head.weight":
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
