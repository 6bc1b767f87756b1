"""Named tensors wherever they are: files, folders, hubs, memory. `open` is the way in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from breadcrumbs.checkpoint.opening import hub_id, not_a_source, opened
from breadcrumbs.checkpoint.tensors import Checkpoint, Tensor

__all__ = ["Checkpoint", "Tensor", "hub_id", "not_a_source", "open"]


def open(source: str | os.PathLike[str] | Mapping[str, Any], label: str = "") -> Checkpoint:
    """Return the checkpoint that ``source`` names, its tensors not yet read.

    source, the first of these that fits:
        a Checkpoint, which is returned as it is;
        a mapping of names to NumPy arrays or Torch tensors, which is not copied;
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
        a hub id, ``org/name`` or ``org/name@revision`` (branch, tag or commit), which is
            downloaded to the cache of `huggingface_hub`, or found there.
    label: how messages call a mapping ("mapping" unless told).

    Quantised weights become what they stand for (`breadcrumbs.checkpoint.quantised`).

    Raises CheckpointError when there is no such thing or it is not what it claims to be. What looks
    like a path (begins with ``.``, ``/``, ``~`` or a drive letter, has a backslash or several
    slashes, ends like a weight file) is never asked of a hub.
    """
    return opened(source, label, _insert)


def _insert(text: str, base: str, adapter: str) -> Checkpoint:
    from breadcrumbs.checkpoint.adapters import inserted

    return inserted.opened(text, base, adapter, open)
