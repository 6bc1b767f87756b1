"""TSV-C: of each matrix of a task vector, the leading singular triplets.

Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025,
arXiv:2412.00081. Of T tasks, each keeps ``floor(min(m, n) / T)`` triplets of a matrix m x n, so
that all tasks take about as much as two matrices, however many they are.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import MismatchError
from breadcrumbs.methods.aggregates.singular import leading
from breadcrumbs.plan import Plan, TensorPlan


def rank(shape: tuple[int, ...], tasks: int) -> int:
    """Return how many triplets each task keeps of a tensor: 1 at least of a matrix, 0 of others."""
    return max(1, min(shape) // tasks) if len(shape) == 2 else 0


def triplets(
    plan: Plan, tensor: TensorPlan, task: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``U S (m, count)`` and ``V^T (count, n)``, zeros where there are fewer triplets."""
    model = tensor.models[task]
    assert model is not None
    tau = model.read().astype(np.float64)
    tau -= tensor.base.read()
    if not np.isfinite(tau).all():
        raise MismatchError(
            f"{plan.models[task].label}: tensor {tensor.name!r} is not finite in it or in the base."
            " Fix the model, or give --whole for that tensor."
        )
    u, s, v = leading(tau, count)
    left, right = np.zeros((tau.shape[0], count)), np.zeros((count, tau.shape[1]))
    left[:, : s.size], right[: s.size] = u * s, v
    return left, right
