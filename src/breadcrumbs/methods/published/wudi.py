"""WUDI: the matrix whose product with what each task's layer takes in interferes least.

Cheng et al., "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via
Task Vectors", ICML 2025, arXiv:2503.08099.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from breadcrumbs.methods import Everything, Integer, Method, Real, Values, Whole
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, STACK, each, of_matrices

#: Adam's: how much of the mean gradient, and of the mean square, is kept; what is added to a root.
FIRST, SECOND, TINY = 0.9, 0.999, 1e-8


def terms(taus: np.ndarray) -> tuple[Callable[[np.ndarray, np.ndarray], None], np.ndarray]:
    """Return what writes ``M A`` of a matrix M, and ``B``.

    ``A = sum tau^T tau / |tau|^2`` and ``B = sum tau tau^T tau / |tau|^2``: the loss is ``sum |(M -
    tau_t) tau_t^T|^2 / |tau_t|^2``, its gradient ``2 (M A - B)``. A task vector of zeros is left
    out. A has the square of the columns' number; where the task vectors together have so few rows
    that they themselves are less, and less work, ``M A`` is the sum of ``(M tau^T) tau / |tau|^2``.
    taus: divided by their norms in place then.
    """
    total, rows, columns = taus.shape
    thin = 2 * total * rows < columns
    a, b = np.zeros(() if thin else (columns,) * 2), np.zeros((rows, columns))
    for tau in taus:
        size = np.abs(tau).max()
        if not size:
            continue
        unit = tau / size  # its squares are numbers, whatever the size
        square = np.vdot(unit, unit)
        if thin:
            own = tau.copy()
            np.divide(unit, math.sqrt(square), out=tau)
            b += (own @ tau.T) @ tau  # as below, so that one model alone has a gradient of 0
            continue
        gram = unit.T @ unit
        gram /= square
        a += gram
        b += tau @ gram

    def by_factors(matrix: np.ndarray, out: np.ndarray) -> None:
        out[:] = 0
        for unit in taus:
            out += (matrix @ unit.T) @ unit

    def by_gram(matrix: np.ndarray, out: np.ndarray) -> None:
        np.matmul(matrix, a, out=out)

    return (by_factors if thin else by_gram), b


def wudi(taus: np.ndarray, values: Values) -> np.ndarray:
    """Return what ``steps`` of Adam at ``rate`` make of the sum of the task vectors.

    taus: ``(T, m, n)``; rows are outputs. The gradient is that of `terms`, in closed form, where
    the published program differentiates. An entry moves by about ``steps * rate`` at most: 300
    steps at 1e-5 stop far from the minimum, and the result depends on the unit of the weights.
    Where gradients are 0 but for rounding, a step makes rounding up to ``rate / 1e-8`` times as
    large: such entries are only sure to ``steps * rate``. The paper has no weights: here they
    multiply the task vectors.
    """
    matrix = taus.sum(axis=0)
    times_a, b = terms(taus)
    first, second = np.zeros(matrix.shape), np.zeros(matrix.shape)
    gradient, size = np.empty(matrix.shape), np.empty(matrix.shape)
    # Of 1024 x 2816 a step takes 0.3 s in one thread, 0.25 s of it the product.
    for step in range(1, values["steps"] + 1):
        times_a(matrix, gradient)
        gradient -= b
        gradient *= 2
        second *= SECOND
        np.square(gradient, out=size)
        size *= 1 - SECOND
        second += size
        first *= FIRST
        gradient *= 1 - FIRST
        first += gradient
        np.divide(second, 1 - SECOND**step, out=size)
        np.sqrt(size, out=size)
        size += TINY
        np.divide(first, size, out=gradient)
        gradient *= values["rate"] / (1 - FIRST**step)
        matrix -= gradient
    return matrix


def _memory(shape: tuple[int, ...], models: int) -> float:
    """Return the `Whole.memory`, as measured: Adam's, and A with what is added to it."""
    if len(shape) < 2:
        return 2.0 * math.prod(shape)
    columns = shape[-1]
    square = 0 if 2 * models * shape[-2] < columns else 2 * columns**2
    return 7.5 * math.prod(shape) + square


WUDI = Whole(
    combine=of_matrices(wudi),
    each=each,
    parameters={
        "steps": Integer(300, 0, "steps of Adam"),
        "rate": Real(1e-5, "learning rate of Adam"),
        "stack": STACK,
        "alpha": Real(1.0, "factor of the merged task vector"),
    },
    memory=_memory,
    svds="none; one product (m x n) (n x n), or fewer of thin ones, for each step",
    name="wudi",
)

METHOD = Method(
    "wudi",
    Everything(),
    WUDI,
    "move the sum towards the matrix that interferes least with each task's inputs",
    "base + alpha * M, M from sum_t tau_t by `steps` of Adam on "
    "sum_t |(M - tau_t) tau_t^T|^2 / |tau_t|^2",
    "Cheng et al., Whoever Started the Interference Should End It, ICML 2025, arXiv:2503.08099",
    OF_MATRICES + " Slow: one product of an m x n and an n x n matrix a step.",
)
