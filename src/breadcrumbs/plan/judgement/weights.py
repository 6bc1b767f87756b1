"""Weights that are no fine-tuning of the base's, and tensors that a save has lost.

Looked at are a bounded sample of entries (`lengths`) and a few of each tensor, in places that
follow from the shapes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.errors import counted, listing
from breadcrumbs.plan import lengths
from breadcrumbs.plan.plan import Plan, TensorPlan

#: A task vector of this share of the base's length is not a fine-tuning's: those are below 0.3,
#: another pretraining of the same size is at 1.4.
FAR = 0.5
#: Matrices with fewer entries in all tell too little.
ENOUGH = 2048
#: Matrices that are looked at one by one where a whole task vector is long.
MATRICES = 64
#: Tensors whose entries are looked at for zeros, at most; of so many entries at least; so many
#: entries in each of so many places.
TENSORS = 16384
LEAST = 16
RUN = 64
PLACES = 3


def warnings(plan: Plan) -> list[str]:
    """Return a line for each model that is far from the base or has lost tensors."""
    return [*_far(plan), *_zeros(plan)]


def _far(plan: Plan) -> list[str]:
    """Return a line for each model whose task vector is as long as the base.

    Of matrices, and not only of some: a head that begins anew is long too. Task files were judged
    when they were packed.
    """
    if all(model.cut for model in plan.models):
        return []
    matrices = [_own(plan, t) for t in plan.merged if len(t.base.shape) >= 2 and t.base.size]
    if sum(tensor.base.size for tensor in matrices) < ENOUGH:
        return []
    found = _shares(plan, matrices)
    far = [number for number, share in enumerate(found) if share > FAR]
    if not far:
        return []
    some = matrices[:: -(-len(matrices) // MATRICES)]
    each = [_shares(plan, [tensor]) for tensor in some]
    lines = []
    for number in far:
        known = [row[number] for row, t in zip(each, some, strict=True) if t.models[number]]
        if known and np.median(known) > FAR:
            lines.append(
                f"{plan.models[number].label}: differs from {plan.base.label} by"
                f" {found[number]:.2g} times the norm of its weights, as another pretraining does,"
                " and no fine-tuning. Leave the model out, or give the base that it was trained"
                " from"
            )
    return lines


def _own(plan: Plan, tensor: TensorPlan) -> TensorPlan:
    """Return the plan of a tensor without task files."""
    if not any(model.cut for model in plan.models):
        return tensor
    both = zip(tensor.models, plan.models, strict=True)
    return replace(tensor, models=tuple(None if model.cut else mine for mine, model in both))


def _shares(plan: Plan, tensors: Sequence[TensorPlan]) -> list[float]:
    """Return how long the task vector of each model is, the base being 1; 0 where that is 0."""
    found = lengths.of(replace(plan, tensors=tuple(tensors)))
    return [length / found.base if found.base else 0.0 for length in found.models]


def _zeros(plan: Plan) -> list[str]:
    """Return a line for each model that has tensors of zeros where the base has none."""
    tensors = [t for t in plan.merged if t.base.size >= LEAST]
    tensors = tensors[:: max(1, -(-len(tensors) // TENSORS))]
    lost: dict[int, list[str]] = {}
    for tensor in tensors:
        own = _own(plan, tensor).models
        empty = [i for i, m in enumerate(own) if m is not None and not _any(m)]
        if empty and _any(tensor.base):
            for number in empty:
                lost.setdefault(number, []).append(tensor.name)
    return [
        f"{plan.models[number].label}: {counted(len(names), 'tensor')} of zeros, where"
        f" {plan.base.label} has weights:"
        f" {listing(names)}. Is it an incomplete save (ZeRO-3)? Save the model again, for example"
        " with zero_to_fp32.py, or keep the base's with --exclude"
        for number, names in lost.items()
    ]


def _any(tensor: Tensor) -> bool:
    """Return whether one of the entries that are looked at is not 0."""
    run = min(RUN, tensor.size)
    for place in range(PLACES):
        entries = np.empty(run, DTYPES[tensor.dtype])
        tensor.read_into(place * (tensor.size - run) // (PLACES - 1), entries)
        if entries.view(np.uint8).any() and (entries != 0).any():
            return True
    return False
