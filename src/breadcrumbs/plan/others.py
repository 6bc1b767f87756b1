"""What is no weight: which value of it a merged model has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from breadcrumbs.checkpoint import kinds
from breadcrumbs.checkpoint.quantised.unknown import are_called_codes
from breadcrumbs.checkpoint.tensors import DTYPES, Checkpoint, Tensor
from breadcrumbs.errors import MismatchError, listing
from breadcrumbs.plan.partners import Remarks
from breadcrumbs.plan.settings import Own
from breadcrumbs.plan.ties import same


def chosen(
    tensor: Tensor, models: Sequence[Tensor | None], own: Sequence[Own]
) -> tuple[Tensor | None, bool]:
    """Return what is taken instead of the base's tensor, None for that, and whether some differ.

    No step can be taken between integers, or towards another mask: what all models that count have
    is taken, and where they do not agree, what the base has.
    """
    both = zip(models, own, strict=True)
    mine = [model for model, one in both if model is not None and one.weight]
    others = [model for model in mine if not same(tensor, model)]
    if not others:
        return None, False
    fits = others[0].shape == tensor.shape and others[0].dtype == tensor.dtype
    agreed = fits and len(others) == len(mine) and all(same(others[0], m) for m in others[1:])
    return (others[0] if agreed else None), True


def check_codes(tensor: Tensor) -> None:
    """Raise MismatchError if what differs between models can only be codes of quantised weights.

    Such as an int8 matrix called a weight, whose scale is nowhere.
    """
    if are_called_codes(tensor.name, tensor):
        raise MismatchError(
            f"tensor {tensor.name!r} is a matrix of {tensor.dtype} that differs between the models:"
            " quantised weights, in an unknown layout, which cannot be merged. Give the"
            f" models they were made from, or `exclude: {tensor.name}` to keep the base's."
        )


def remark(tensors: Sequence[tuple[Tensor, bool]], remarks: Remarks) -> None:
    """Say which tensors that are not weights differ. tensors: and whether the models' was taken."""
    for taken, what in (
        (True, "differ from the base and are taken as all models have them"),
        (False, "differ between the models, so the base's are kept"),
    ):
        mine = [tensor for tensor, was_taken in tensors if was_taken == taken]
        buffers = [t.name for t in mine if t.kind not in (kinds.OTHER, kinds.COUNTER)]
        others = [t.name for t in mine if t.kind == kinds.OTHER]
        if others:
            remarks.warnings.append(f"tensors that are not weights {what}: {listing(others)}")
        if buffers:
            lines = remarks.notes if taken else remarks.warnings
            lines.append(f"buffers {what}: {listing(buffers)}")


def is_mask(tensor: Tensor) -> bool:
    """Return whether a tensor is a mask of attention, with infinity in its first or last row."""
    if not (tensor.is_weight and kinds.may_be_mask(tensor.name, tensor.shape)):
        return False
    rows = np.empty((2, tensor.shape[-1]), DTYPES[tensor.dtype])
    tensor.read_into(0, rows[0])
    tensor.read_into(tensor.size - rows.shape[1], rows[1])
    return bool(np.isinf(rows.astype(np.float64)).any())


def markers(base: Checkpoint, models: Sequence[Checkpoint], remarks: Remarks) -> list[Tensor]:
    """Return the markers that all models have and the base lacks; say so, and which only some have.

    Such as `v_pred`, by which programs know how a diffusion model is to be sampled.
    """
    found: dict[str, list[Checkpoint]] = {}
    for model in models:
        for name, tensor in model.tensors.items():
            if name not in base.tensors and tensor.kind == kinds.MARKER:
                found.setdefault(name, []).append(model)
    kept = [name for name, owners in found.items() if len(owners) == len(models)]
    if kept:
        remarks.notes.append(f"kept the markers of the models: {listing(kept)}")
    left = [name for name in found if name not in kept]
    if left:
        whose = ", ".join(dict.fromkeys(model.label for name in left for model in found[name]))
        remarks.warnings.append(
            f"{whose}: left out markers that other models lack: {listing(left)}; are the models of"
            " one kind?"
        )
    return [models[0].tensors[name] for name in kept]
