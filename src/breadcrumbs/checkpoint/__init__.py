"""Named tensors wherever they are: files, folders, hubs, memory. `open` is the way in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, overload

from breadcrumbs.checkpoint import like, live
from breadcrumbs.checkpoint.folder import AdapterError
from breadcrumbs.checkpoint.lazy import Weights
from breadcrumbs.checkpoint.opening import hub_id, is_single, not_a_source, opened
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor
from breadcrumbs.errors import explained

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Checkpoint", "Tensor", "Weights", "hub_id", "load", "not_a_source", "open"]


def open(source: Any, label: str = "") -> Checkpoint:
    """Return the checkpoint that ``source`` names, its tensors not yet read.

    source, the first of these that fits:
        a Checkpoint, which is returned as it is; Weights, whose checkpoint is;
        a mapping of names to NumPy arrays or Torch tensors, which is not copied;
        a Torch module, with its active adapter if PEFT has put one in
            (`breadcrumbs.checkpoint.live`);
        an existing folder with ``model.safetensors``, with shards and an index, or with
            ``pytorch_model.bin`` (`breadcrumbs.checkpoint.folder` has the order), or a model whose
            weights are in several folders (`breadcrumbs.checkpoint.composite`);
        an existing ``.safetensors`` file, pickle of Torch (``.bin``, ``.pt``, ``.pth``, ``.ckpt``
            and so on; needs Torch), or index;
        such a pickle or its folder, and the key of one of several state dicts in it,
            ``PATH::KEY``, or several keys, ``PATH::KEY::KEY`` (`breadcrumbs.checkpoint.wrapped`);
        a stack of layers, ``PART[FIRST:LAST] + PART[FIRST:LAST]``, each part a path or hub id
            (`breadcrumbs.checkpoint.stack`);
        a model with an adapter in it, ``BASE+ADAPTER``, each a path or hub id
            (`breadcrumbs.checkpoint.adapters.inserted`);
        an adapter, in any of these ways: a folder or hub id of PEFT's, its
            ``adapter_model.safetensors``, a LoRA file of kohya's scripts or diffusers, whose
            tensors are its matrices until it is merged: then it is put into the base;
        a hub id, ``org/name`` or ``org/name@revision`` (branch, tag or commit), which is
            downloaded to the cache of `huggingface_hub`, or found there.
    label: how messages call a mapping ("mapping" unless told).

    Quantised weights become what they stand for (`breadcrumbs.checkpoint.quantised`).

    Raises CheckpointError when there is no such thing or it is not what it claims to be. What looks
    like a path (begins with ``.``, ``/``, ``~`` or a drive letter, has a backslash or several
    slashes, ends like a weight file) is never asked of a hub.
    """
    if isinstance(source, Weights):
        return source.checkpoint
    if live.is_module(source):
        return live.opened(source, label or "module", opened)
    try:
        found = opened(source, label, _insert)
    except AdapterError:
        text = os.fsdecode(source) if isinstance(source, str | os.PathLike) else ""
        if not is_single(text):
            raise
        from breadcrumbs.checkpoint.adapters import reading

        return reading.alone(text)
    if len(found.files) != 1 or found.adapter is not None:
        return found
    from breadcrumbs.checkpoint.adapters import reading

    return reading.told(found)


@overload
def load(source: Any, *, as_: Literal["torch"]) -> Weights[torch.Tensor]: ...
@overload
def load(source: Any, *, as_: Literal["numpy"] = "numpy") -> Weights[np.ndarray]: ...
@explained
def load(source: Any, *, as_: Any = "numpy") -> Weights[Any]:
    """Return the named tensors of a model, read when they are asked for.

    source: a path, hub id, state dict or module: what `breadcrumbs.merge` takes. as_: ``numpy`` or
    ``torch``, what tensors are read as.

    ``weights["name"]`` is a tensor, ``weights["name", 10:20]`` some of its rows, of which no other
    bytes are read; ``weights.shapes`` and ``weights.dtypes`` read nothing. Quantised weights are
    what they stand for. CheckpointError where there is no such model.

    >>> import numpy as np, breadcrumbs
    >>> weights = breadcrumbs.load({"w": np.arange(6, dtype=np.float32).reshape(3, 2)})
    >>> weights.shapes
    {'w': (3, 2)}
    >>> weights["w", 1:].tolist()
    [[2.0, 3.0], [4.0, 5.0]]
    """
    like.check(as_)
    return Weights(open(source), as_)


def _insert(text: str, base: str, adapter: str) -> Checkpoint:
    from breadcrumbs.checkpoint.adapters import inserted

    return inserted.opened(text, base, adapter, open)
