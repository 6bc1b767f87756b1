"""Stores of small families, and what they merge to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from families import checkpoints

import breadcrumbs
from breadcrumbs.store import Store


def merged(store: Store, **options) -> dict[str, np.ndarray]:
    """Return what a store merges to."""
    output = store.folder.parent / "merged.safetensors"
    store.merge(output, force=True, **options)
    return dict(breadcrumbs.open(output))


def filled(folder: Path, dtype: str = "float32", models: int = 3, **options) -> tuple[Store, list]:
    """Return a store with tasks t1, t2, ..., and the base and models that it is made of."""
    paths = checkpoints(folder, dtype, models)
    store = Store.create(folder / "store", paths[0], **options)
    for number, path in enumerate(paths[1:], 1):
        store.add(f"t{number}", path)
    return store, paths
