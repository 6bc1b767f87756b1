"""Adapters that were merged into their models, where a method looks at directions.

What rounding the weights added to such a task vector has all directions, small and of like length,
and methods that even out or count directions take them for some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES, Tensor
from breadcrumbs.plan.plan import Plan, TensorPlan

#: Matrices of each model that are looked at: the smallest ones, of so many rows and columns at
#: least; and how many of their entries at most, the first rows: of few directions, these have few.
MATRICES = 3
LEAST = 32
MOST = 1 << 22
#: A model is named where at most one of so many directions is above what rounding makes, in most of
#: its matrices that are looked at.
FEW = 4
#: How far above the length of rounding that is.
MARGIN = 1.5


def warnings(plan: Plan) -> list[str]:
    """Return a line for each model whose task vectors are few directions and rounding."""
    whole, finish = plan.lowered.whole, plan.lowered.finish
    if finish is None and (whole is None or not whole.directions):
        return []
    matrices = [t for t in plan.merged if _fits(t.base.shape)]
    matrices.sort(key=lambda tensor: tensor.base.size)
    return [
        f"{model.label}: in {tensor.name} only {above} of {min(_part(tensor))} directions of"
        f" its task vector stand out from the rounding of {_name(tensor, number)} weights, as if an"
        f" adapter had been merged into them; {plan.method.name} counts the rounding as directions"
        " too. Give the adapter itself, BASE+ADAPTER, or a task file"
        for number, model in enumerate(plan.models)
        if not model.cut
        for tensor, above in _rounded(matrices, number)
    ]


def _fits(shape: Sequence[int]) -> bool:
    return len(shape) == 2 and min(shape) >= LEAST and LEAST * shape[1] <= MOST


def _part(tensor: TensorPlan) -> tuple[int, int]:
    """Return the rows and columns of a matrix that are looked at."""
    rows, columns = tensor.base.shape
    return min(rows, MOST // columns), columns


def _rounded(matrices: Sequence[TensorPlan], number: int) -> list[tuple[TensorPlan, int]]:
    """Return the first matrix of a model, and its directions above rounding, if these are few."""
    looked, few = 0, []
    for tensor in matrices:
        model = tensor.models[number]
        if model is None or hasattr(model.source, "change"):
            continue
        found = _directions(tensor.base, model, _part(tensor))
        if found is None:
            continue
        above, rest = found
        looked += 1
        if rest and 0 < above <= min(_part(tensor)) // FEW:
            few.append((tensor, above))
        if looked == MATRICES:
            break
    return few[:1] if 2 * len(few) > looked else []


def _directions(base: Tensor, model: Tensor, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return how many directions of a task vector are above rounding and how many below, not 0.

    shape: of the rows that are looked at. None where nothing changed, or not all is finite.
    """
    old, new = (_rows(one, shape) for one in (base, model))
    tau = new - old
    if not np.isfinite(tau).all() or not tau.any():
        return None
    gram = tau @ tau.T if tau.shape[0] <= tau.shape[1] else tau.T @ tau
    lengths = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    # An entry is off by up to half a step, evenly; so long is the longest direction of such noise.
    step = max(float(ml_dtypes.finfo(DTYPES[one.dtype]).eps) for one in (base, model))
    noise = step * math.sqrt(np.square(new).mean() / 12) * sum(map(math.sqrt, tau.shape))
    lost = lengths[-1] * 1e-7  # what the products cannot tell from 0
    return int((lengths > MARGIN * noise).sum()), int(
        ((lengths <= MARGIN * noise) & (lengths > max(lost, noise * 1e-3))).sum()
    )


def _rows(tensor: Tensor, shape: tuple[int, int]) -> np.ndarray:
    raw = np.empty(math.prod(shape), DTYPES[tensor.dtype])
    tensor.read_into(0, raw)
    return raw.astype(np.float64).reshape(shape)


def _name(tensor: TensorPlan, number: int) -> str:
    model = tensor.models[number]
    assert model is not None
    return max((tensor.base, model), key=lambda one: ml_dtypes.finfo(DTYPES[one.dtype]).eps).dtype
