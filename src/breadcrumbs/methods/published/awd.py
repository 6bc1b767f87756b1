"""AWD: task vectors less what makes them alike, which for their sum is a weight for each.

Xiong et al., "Multi-Task Model Merging via Adaptive Weight Disentanglement", 2024,
arXiv:2411.18729: one vector ``d`` of the whole model is taken from all task vectors, found by
``steps`` of gradient descent from 0 on the mean magnitude of the cosines of all pairs, ``|cos(tau_i
- d, tau_j - d)|``, plus ``penalty |d|``. Every gradient lies in the space of the task vectors, so
``d = sum k_t tau_t``, and the numbers ``k_t`` follow from the inner products of the task vectors:
the loop runs on these, and the sum of ``tau_t - d`` is that of ``(1 - T k_t) tau_t``.

The paper's rate of .01 and penalty of .1 are for task vectors as long as they are on CLIP. Here
lengths are in units of L, the root mean square of the task vectors' lengths over the model: its
rate is .01 / L^2 here, its penalty .1 L. The paper has no weights: here they multiply the task
vectors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    Elementwise,
    Entries,
    Everything,
    Extent,
    Factor,
    Fold,
    Integer,
    Method,
    Real,
    Total,
    Values,
)
from breadcrumbs.methods.aggregates import ordering


def gradient(gram: np.ndarray, k: np.ndarray, penalty: float) -> np.ndarray:
    """Return the gradient at ``d = sum k_t tau_t`` as a combination of the task vectors, (T,).

    gram: (T, T) inner products. That of a length of 0 counts as 0.
    """
    number = len(k)
    along, size = gram @ k, max(0.0, float(k @ gram @ k))
    left = gram - along[:, None] - along[None, :] + size  # products of tau_t - d
    norms = np.sqrt(np.maximum(np.diagonal(left), 0))
    known = norms > 0
    safe = np.where(known, norms, 1)
    cosines = np.where(np.outer(known, known), left / np.outer(safe, safe), 0)
    np.fill_diagonal(cosines, 0)
    signs = np.sign(cosines)
    # d cos(a, b) / d d = -(a + b) / |a||b| + cos (a / |a|^2 + b / |b|^2), a = tau_i - d.
    own = (signs * cosines).sum(axis=1) / safe**2 - (signs / np.outer(safe, safe)).sum(axis=1)
    own = 2 * np.where(known, own, 0) / max(1, number * (number - 1))
    found = own - own.sum() * k
    return found + penalty * k / math.sqrt(size) if size > 0 else found


def _shares(gram: np.ndarray, weights: Sequence[float], values: Values) -> np.ndarray:
    """Return 0 for the base, and ``1 - T k_t`` of each task vector; gram: (1 + T, 1 + T)."""
    inner, number = gram[1:, 1:], len(weights)
    unit = float(np.trace(inner)) / max(number, 1)
    k = np.zeros(number)
    for _ in range(values["steps"] if unit > 0 else 0):
        k = k - values["rate"] * gradient(inner / unit, k, values["penalty"])
    return np.array([0.0, *(1 - number * k)])


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, np.ndarray]:
    """Return the share of each model, (T,)."""
    rows, columns = np.tril_indices(extent.models)

    def scan(entries: Entries) -> list[Total]:
        terms, found = entries.terms, nothing()
        for total, i, j in zip(found, rows, columns, strict=True):
            total.add(terms[i] * terms[j])
        return found

    def nothing() -> list[Total]:
        return [Total() for _ in rows]

    def join(known: list[Total], found: list[Total]) -> list[Total]:
        return [operator.iadd(*pair) for pair in zip(known, found, strict=True)]

    found = yield Fold(scan, join, nothing)
    gram = np.zeros((1 + extent.models, 1 + extent.models))
    gram[1 + rows, 1 + columns] = gram[1 + columns, 1 + rows] = [float(total) for total in found]
    return ordering.apart(_shares)(gram, [1.0] * extent.models, values)[1:]


def _combine(entries: Entries, values: Values) -> np.ndarray:
    return entries.kernels.exact_sum(entries.terms * entries.known[:, None])


AWD = Elementwise(
    combine=_combine,
    parameters={
        "steps": Integer(300, 0, "steps of gradient descent"),
        "rate": Real(0.01, "its rate, in units of the mean task vector"),
        "penalty": Real(0.1, "what the length of what is taken away costs, in the same units"),
        "alpha": Factor(0.3, "factor of the sum"),
    },
    models=(1, None),
    prepare=_prepare,
    passes=lambda values: 1,
    name="awd",
)

METHOD = Method(
    "awd",
    Everything(),
    AWD,
    "add the task vectors less one vector that makes them alike",
    "base + alpha * sum_t (w_t tau_t - d), d = argmin mean_ij |cos(tau_i - d, tau_j - d)|"
    " + penalty |d|, by `steps` of gradient descent",
    "Xiong et al., Adaptive Weight Disentanglement, 2024, arXiv:2411.18729",
    "Found from the inner products of the task vectors over the whole model. rate and penalty"
    " are in units of the mean length L of the task vectors: the paper's .01 and .1 are"
    " .01 / L^2 and .1 L.",
)
