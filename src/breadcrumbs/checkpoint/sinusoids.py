"""Tables of positions that are computed and not trained, by their values: sines and cosines.

Vaswani et al., "Attention Is All You Need", 2017, section 3.5. Marian, Pegasus, M2M100, XLM and
others store such a table under the name of a trained one, some versions of their programs and not
others. Row p has the sines and cosines of ``p * f_i``, side by side or in halves, with::

    f_i = 10000 ** (-2 i / d)                 the paper, Marian, Pegasus, XLM, RoFormer
    f_i = 10000 ** (-i / (d // 2 - 1))        tensor2tensor, fairseq, M2M100, Speech2Text, Whisper

A row of zeros, of the padding, may be among them, and a last column of zeros where d is odd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor

_NAME = re.compile(
    r"(^|[./])(embed_positions|pos(ition(al)?)?_?(embed(ding)?s?|emb|encod(ing|er)s?)|pe)"
    r"([./](weights?|pe))?$"
)
#: Rows that are looked at, and what a value may be away, by dtype: more than rounding once does.
_ROWS, _FAR = 128, {"BF16": 8e-3}
_NEAR = 2e-3


def told(sources: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Return checkpoints in which computed tables of positions are buffers.

    Only those that are so in each that stores them: what one has trained is a weight.
    """
    named = {name for it in sources for name in it.tensors if _may_be(it.tensors[name])}
    tables = {
        name
        for name in named
        if all(is_one(it.tensors[name]) for it in sources if name in it.tensors)
    }
    return [_with(it, tables & it.tensors.keys()) for it in sources]


def _with(source: Checkpoint, names: set[str]) -> Checkpoint:
    more = {name: replace(source.tensors[name], told=kinds.BUFFER) for name in names}
    return replace(source, tensors={**source.tensors, **more}) if more else source


def _may_be(tensor: Tensor) -> bool:
    if "pos" not in tensor.name and not tensor.name.endswith(("pe", "pe.weight")):
        return False
    shape = [n for n in tensor.shape if n > 1]
    return (
        len(shape) == 2
        and min(shape) > 3
        and tensor.is_weight
        and _NAME.search(tensor.name) is not None
    )


def is_one(tensor: Tensor) -> bool:
    """Return whether a tensor is a computed table of positions, as far as rows are looked at."""
    if not _may_be(tensor):
        return False
    rows, width = (n for n in tensor.shape if n > 1)
    places = np.unique(np.linspace(0, rows - 1, min(rows, _ROWS)).astype(np.int64))
    found = np.empty((places.size, width), np.float64)
    raw = np.empty(width, DTYPES[tensor.dtype])
    for row, place in zip(found, places.tolist(), strict=True):
        tensor.read_into(place * width, raw)
        row[:] = raw
    padding = ~found.any(axis=1)
    if padding.sum() > 1:
        return False
    far = _FAR.get(tensor.dtype, _NEAR)
    return any(
        np.abs(found - expected)[~padding].max() < far for expected in _tables(places, width)
    )


def _tables(places: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """Yield the rows of all such tables (rows, width)."""
    half = width // 2
    for powers in (2 * np.arange(half) / width, np.arange(half) / (half - 1)):
        angles = places[:, None] * 10000.0**-powers
        both, zeros = (np.sin(angles), np.cos(angles)), np.zeros((places.size, width - 2 * half))
        yield np.hstack([*both, zeros])
        yield np.hstack([np.stack(both, axis=2).reshape(places.size, -1), zeros])
