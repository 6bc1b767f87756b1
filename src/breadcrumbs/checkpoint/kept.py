"""Tied tensors that a file has under another name than their own.

Of the names of one tensor, `save_model` of safetensors (and what saves as it does) keeps the first
of the alphabet, ``lm_head.weight`` of a language model, and says in the metadata what else it is:
``{"model.embed_tokens.weight": "lm_head.weight"}``. What looks for embeddings, as adapters do,
must find them.
"""

from __future__ import annotations

from dataclasses import replace

from breadcrumbs.checkpoint.tables import first
from breadcrumbs.checkpoint.tensors import Checkpoint


def view(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with embeddings called so that its metadata say to be stored as another.

    A note says which. Shards have such metadata in their index.
    """
    names: dict[str, list[str]] = {}
    for other, name in checkpoint.metadata.items():
        if name in checkpoint.tensors and other not in checkpoint.tensors:
            names.setdefault(name, [name]).append(other)
    tables = {name: first(among) for name, among in names.items()}
    new = {name: table for name, table in tables.items() if table and table != name}
    if not new:
        return checkpoint
    tensors = {
        new.get(name, name): replace(tensor, name=new.get(name, name))
        for name, tensor in checkpoint.tensors.items()
    }
    notes = [f"{table!r} is stored as {name!r}, to which it is tied" for name, table in new.items()]
    return replace(checkpoint, tensors=tensors, notes=(*checkpoint.notes, *notes))
