"""Named tensors wherever they are: files, folders, hubs, memory. `open` is the way in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from breadcrumbs.checkpoint.folder import AdapterError
from breadcrumbs.checkpoint.opening import hub_id, is_single, not_a_source, opened
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


def _insert(text: str, base: str, adapter: str) -> Checkpoint:
    from breadcrumbs.checkpoint.adapters import inserted

    return inserted.opened(text, base, adapter, open)
