"""Which tensor of a model belongs to which of the base."""

from __future__ import annotations

import fnmatch

import numpy as np

from breadcrumbs.checkpoint import renames
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, listing, suggestion
from breadcrumbs.recipe import Recipe


def partners(
    recipe: Recipe, base: Checkpoint, model: Checkpoint, warnings: list[str]
) -> dict[str, Tensor]:
    """Return the model's tensors under the base's names, tied ones included."""
    found = {name: tensor for name, tensor in model.tensors.items() if name in base.tensors}
    extra = [name for name in model.tensors if name not in base.tensors]
    extra = [name for name in extra if twin(model, name, found) is None]
    if extra and recipe.extra == "error":
        near = renames.suggestion(base, model) or suggestion(extra[0], base.tensors)
        raise MismatchError(
            f"{model.label}: has {len(extra)} tensors that {base.label} lacks: {listing(extra)}."
            f"{near} Is it a fine-tuning of this base? `extra: ignore` (--extra ignore) leaves"
            " them out."
        )
    if extra:
        warnings.append(f"{model.label}: left out what the base lacks: {listing(extra)}")
    missing = []
    for name, tensor in base.tensors.items():
        if name in found or not tensor.is_weight or copied(recipe, tensor):
            continue
        tied = twin(base, name, found)
        if tied is None:
            missing.append(name)
        else:
            found[name] = found[tied]
    if missing and recipe.missing == "error":
        raise MismatchError(
            f"{model.label}: lacks {len(missing)} tensors of {base.label}: {listing(missing)}."
            f"{renames.suggestion(base, model)} Is it a fine-tuning of this base? `missing: base`"
            " (--missing base) counts them as unchanged; `exclude` copies them from the base."
        )
    if missing:
        warnings.append(f"{model.label}: counted as unchanged what it lacks: {listing(missing)}")
    return found


def copied(recipe: Recipe, tensor: Tensor) -> str:
    """Return why a tensor is copied from the base; empty if it is merged."""
    if any(fnmatch.fnmatchcase(tensor.name, glob) for glob in recipe.exclude):
        return "excluded"
    if recipe.only and not any(fnmatch.fnmatchcase(tensor.name, glob) for glob in recipe.only):
        return "not among `only`"
    return "" if tensor.is_weight else "not a weight"


def twin(checkpoint: Checkpoint, name: str, among: dict[str, Tensor]) -> str | None:
    """Return the name of a tied tensor: same shape, dtype and bytes, stored under another name.

    Only matrices that are not constant count: norms and biases are often equal without being tied.
    """
    tensor = checkpoint.tensors[name]
    if len(tensor.shape) < 2:
        return None
    candidates = (checkpoint.tensors.get(other) for other in among if other != name)
    found = [other.name for other in candidates if other is not None and equal(tensor, other)]
    if len(found) != 1 or not _varies(tensor):
        return None
    return found[0]


def _varies(tensor: Tensor) -> bool:
    """Return whether the entries differ, reading until the first that does."""
    step = 1 << 18
    first = None
    for start in range(0, tensor.size, step):
        part = np.empty(min(step, tensor.size - start), DTYPES[tensor.dtype])
        tensor.read_into(start, part)
        values = part.view(np.uint8).reshape(part.size, -1)
        first = values[0].copy() if first is None else first
        if (values != first).any():
            return True
    return False


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same bytes, reading until the first difference."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    step = 1 << 20
    for start in range(0, a.nbytes, step):
        size = min(step, a.nbytes - start)
        pair = np.empty((2, size), np.uint8)
        a.source.read_into(start, memoryview(pair[0]))
        b.source.read_into(start, memoryview(pair[1]))
        if not np.array_equal(pair[0], pair[1]):
            return False
    return True
