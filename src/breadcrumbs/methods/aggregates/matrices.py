"""What the aggregates of matrices share: which tensors are matrices, and what all others get."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.methods.aggregates import Shape, Whole
from breadcrumbs.methods.aggregates.turns import Taus, Turns, added
from breadcrumbs.methods.parameters import OneOf, Parameter, Real, Values

#: Names of tensors that hold the weights of all experts of a layer, along their first dimension:
#: `mlp.experts.gate_up_proj`, `block_sparse_moe.input_linear.weight`, not `experts.0.w1.weight`.
_STACKED = re.compile(r"(?!.*experts?\.\d)(.*\.)?(experts|\w*moe)\.")

#: The parameter that says otherwise, for all tensors or, in overrides, for some.
STACK = OneOf(
    "auto",
    ("auto", "each", "whole"),
    "matrices of a 3-D tensor one by one (each) or not (whole); auto: those of experts",
)

#: The parameter that says whether embeddings and heads of language models are matrices.
TABLES = OneOf(
    "mean",
    ("mean", "matrix"),
    "embeddings and heads of language models get the mean, as in the papers, or are matrices",
)

#: What methods of matrices say of all other tensors.
OF_MATRICES = (
    "Holds a matrix of every model. Tensors that are not matrices get the mean, and so do"
    " embeddings and heads of language models (`tables: matrix` says otherwise); of experts stacked"
    " in one tensor (E, m, n), each matrix is one."
)


def each(name: str, shape: Shape, values: Values) -> Shape:
    """Return the shape of what is treated by itself: the tensor, or one matrix of a stack.

    Of stacked experts (E, m, n) it is each matrix (m, n), whichever side its inputs are on, and of
    their stacked biases (E, n) each row, which is no matrix. Other tensors of three dimensions are
    kernels of convolutions, which stay whole. An embedding or head of a language model is as if
    flat, unless the values say ``tables: matrix``: its rows stand for tokens, it is most of a small
    model and most of the time, and the papers have none.
    """
    if len(shape) == 2 and is_table(name) and values.get("tables", "mean") == "mean":
        return (math.prod(shape),)
    said = values.get("stack", "auto")
    bias = len(shape) == 2 and name.rpartition(".")[2].endswith("bias")
    if said == "whole" or not (len(shape) == 3 or bias):
        return shape
    if said == "each" and not bias:
        return shape[1:]
    return shape[1:] if _STACKED.match(name) else shape


def present(taus: Taus, weights: Sequence[float]) -> Taus:
    """Return the task vectors times their weights, without those of weight 0: they are absent.

    taus: ``(T, *shape)``, multiplied in place; those that come in turns have their weights already.
    """
    if isinstance(taus, Turns):
        return taus
    shares = np.asarray(weights, np.float64)
    if not shares.all():
        taus, shares = taus[shares != 0], shares[shares != 0]
    if np.any(shares != 1):
        taus *= shares.reshape(-1, *[1] * (taus.ndim - 1))
    return taus


def of_matrices(
    step: Callable[[Any, Values], np.ndarray],
) -> Callable[[np.ndarray, Taus, Sequence[float], Values], np.ndarray]:
    """Return the ``combine`` of a step for matrices; any other tensor gets the mean.

    With `each`, which gives it the matrices of a stack one by one.

    step: (task vectors times their weights (T, m, n), T > 0; values) -> (m, n). The mean is of the
    task vectors times their weights. No task vector: 0.
    """

    def combine(
        base: np.ndarray, taus: Taus, weights: Sequence[float], values: Values
    ) -> np.ndarray:
        taus = present(taus, weights)
        if not taus.size:
            return np.zeros(base.shape)
        return step(taus, values) if base.ndim == 2 else added(taus) / len(taus)

    return combine


def aggregate(
    name: str,
    step: Callable[[Any, Values], np.ndarray],
    parameters: Mapping[str, Parameter] | None = None,
    *,
    alpha: bool = True,
    turns: bool = True,
    **more: Any,
) -> Whole:
    """Return the aggregate of a step for matrices, as `of_matrices` takes it.

    parameters: its own; those of all of these come after them. alpha: whether that is one. turns:
    whether the step takes `turns.Turns`. more: of `Whole`.
    """
    common: dict[str, Parameter] = {"stack": STACK, "tables": TABLES}
    if alpha:
        common["alpha"] = Real(1.0, "factor of the merged task vector")
    return Whole(
        combine=of_matrices(step),
        parameters={**(parameters or {}), **common},
        each=each,
        by_entry=True,
        turns=turns,
        algebra=True,
        name=name,
        **more,
    )


def of_svd(products: float, square: float) -> Callable[[tuple[int, ...], int], float]:
    """Return the `Whole.memory` of a step by decompositions, as measured.

    products: of a matrix m x n, in units of m n; square: of ``min(m, n)`` squared. Other tensors
    take the sum.
    """

    def memory(shape: tuple[int, ...], models: int) -> float:
        if len(shape) < 2:
            return 2.0 * math.prod(shape)
        return products * math.prod(shape) + square * min(shape[-2:]) ** 2

    return memory
