"""WUDI: the matrix whose product with what each task's layer takes in interferes least.

Cheng et al., "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via
Task Vectors", ICML 2025, arXiv:2503.08099. The loss is ``sum |(M - tau_t) tau_t^T|^2 / |tau_t|^2``,
so with ``A = sum tau^T tau / |tau|^2`` and ``C = sum tau tau^T tau / |tau|^2`` its gradient is
``2 (M A - C)``, and what it leads to follows from the eigenvectors of A, ``A = Q e Q^T``:

* ``solver: flow``: gradient flow from the sum ``S`` of the task vectors, for the time in which the
  mean eigenvalue decays by ``exp(-time)``: ``[C Q (1 - z) / e + S Q z] Q^T``, ``z = exp(-time e /
  mean e)``. Where no task has anything, the sum stays.
* ``solver: ridge``: ``C (A + ridge mean e)^-1``; at 0 the pseudoinverse.
* ``solver: adam``: the published program, ``steps`` of Adam at an absolute ``rate``. An entry moves
  by steps * rate at most, .003, which is far on CLIP ViT-B/32 and next to nothing where task
  vectors are larger.

The first two depend on no unit of the weights, and take one decomposition where Adam takes a
product of matrices a step. "SWUDI", arXiv:2606.07289, has the flow with a cut on top. ACTMat,
arXiv:2604.01329, is the loss without the norms, so that large task vectors count more: ``normalize:
none`` with ``solver: ridge``, ``ridge: 0``. The papers have no weights: here they multiply the task
vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import Everything, Integer, Method, OneOf, Real, Values, algebra
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate
from breadcrumbs.methods.aggregates.singular import EPS

#: Adam's: how much of the mean gradient, and of the mean square, is kept; what is added to a root.
FIRST, SECOND, TINY = 0.9, 0.999, 1e-8


def is_thin(shape: tuple[int, ...], models: int) -> bool:
    """Return whether all rows of the task vectors together are less than the square of A."""
    return 2 * models * shape[-2] < shape[-1]


def terms(taus: np.ndarray, norms: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return A, or of thin task vectors what it is made of, and C.

    taus: ``(T, m, n)``; rows are outputs. A: ``(n, n)``, or ``(T m, n)`` with ``A = rows^T rows``.
    A task vector of zeros is left out. norms: whether each counts by 1 / |tau|^2; without, A and C
    are over the square of the largest entry. Thin task vectors are overwritten.
    """
    total, rows, columns = taus.shape
    thin = is_thin(taus.shape[1:], total)
    a = np.zeros(() if thin else (columns, columns))
    c, largest = np.zeros((rows, columns)), np.abs(taus).max(initial=0)
    for tau in taus:
        size = np.abs(tau).max() if norms else largest
        if not size:
            continue
        unit = tau / size  # its squares are numbers, whatever the size
        square = np.vdot(unit, unit) if norms else 1.0
        if thin:
            before = tau.copy()
            np.divide(unit, math.sqrt(square), out=tau)
            # As below, so that one model alone has a gradient of 0.
            c += algebra.product(algebra.product(before, tau.T), tau)
            continue
        gram = algebra.product(unit.T, unit)
        gram /= square
        a += gram
        c += algebra.product(tau, gram)
    return (taus.reshape(-1, columns) if thin else a), c


def term(tau: np.ndarray, norms: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return what one task vector ``(m, n)`` adds to A, here always ``(n, n)``, and to C.

    norms: as for `terms`; without, nothing is divided.
    """
    size = np.abs(tau).max(initial=0) if norms else 1.0
    if not size:
        return np.zeros((tau.shape[1],) * 2), np.zeros(tau.shape)
    unit = tau / size
    square = np.vdot(unit, unit) if norms else 1.0
    gram = algebra.product(unit.T, unit)
    gram /= square
    if is_thin(tau.shape, 1):
        c = algebra.product(algebra.product(tau, unit.T), unit)
        c /= square
        return gram, c
    return gram, algebra.product(tau, gram)


def factors(a: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the matrices whose product is A: A itself, or ``rows^T`` and ``rows``."""
    return (a,) if len(a) == a.shape[1] else (a.T, a)


def times(matrix: np.ndarray, right: Iterable[algebra.Matrix]) -> np.ndarray:
    """Return a matrix times one after the other."""
    for one in right:
        matrix = algebra.product(matrix, one)
    return matrix


def spectrum(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (k,) of A that are not 0, and their vectors (n, k)."""
    if len(a) == a.shape[1]:
        e, q = algebra.eigh(a)
        keep = e > EPS * len(a) * e[-1:].max(initial=0)
        return e[keep], q[:, keep]
    e, w = algebra.eigh(algebra.product(a, a.T))
    keep = e > EPS * a.shape[1] * e[-1:].max(initial=0)
    return e[keep], algebra.product(a.T, w[:, keep]) / np.sqrt(e[keep])


def solved(taus: np.ndarray, values: Values) -> np.ndarray:
    """Return what gradient flow or the ridge make of the task vectors."""
    start = taus.sum(axis=0)
    return solution(start, *terms(taus, values["normalize"] == "norms"), values)


def solution(start: np.ndarray, a: np.ndarray, c: np.ndarray, values: Values) -> np.ndarray:
    """Return what gradient flow or the ridge make of the sum of the task vectors, A and C."""
    if not a.any():
        return np.zeros(c.shape)
    e, q = spectrum(a)
    middle = e.sum() / a.shape[1]
    if values["solver"] == "ridge":
        return algebra.product(algebra.product(c, q) / (e + own(values, "ridge") * middle), q.T)
    # As much of the way to the minimum; of one model alone there is no way to go.
    way = algebra.product(c - times(start, factors(a)), q)
    way *= -np.expm1(-own(values, "time") * e / middle) / e
    return start + algebra.product(way, q.T)


def adam(taus: np.ndarray, values: Values) -> np.ndarray:
    """Return what ``steps`` of Adam at ``rate`` make of the sum of the task vectors.

    The gradient is in closed form, where the published program differentiates. Where gradients are
    0 but for rounding, a step makes rounding up to ``rate / 1e-8`` times as large: such entries are
    only sure to ``steps * rate``.
    """
    matrix = taus.sum(axis=0)
    a, c = terms(taus, values["normalize"] == "norms")
    first, second = np.zeros(matrix.shape), np.zeros(matrix.shape)
    size = np.empty(matrix.shape)
    right = [algebra.hold(one) for one in factors(a)]
    # Of 1024 x 2816 a step takes 0.3 s in one thread, 0.25 s of it the product.
    for step in range(1, int(own(values, "steps")) + 1):
        gradient = times(matrix, right)
        gradient -= c
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
        gradient *= own(values, "rate") / (1 - FIRST**step)
        matrix -= gradient
    return matrix


def wudi(taus: np.ndarray, values: Values) -> np.ndarray:
    """Return the merged matrix of the task vectors ``(T, m, n)``; rows are outputs."""
    return (adam if values["solver"] == "adam" else solved)(taus, values)


#: The parameters of one solver alone, and what they are if not given.
OWN = {"flow": {"time": 2.0}, "ridge": {"ridge": 0.1}, "adam": {"steps": 300, "rate": 1e-5}}


def _check(given: Values) -> Values:
    solver = given.get("solver", "flow")
    for other, names in OWN.items():
        for name in names if other != solver else ():
            if name in given:
                raise RecipeError(f"wudi: {name} is of solver {other}. Give solver={other}.")
    for name in ("time", "ridge"):
        if given.get(name, 0) < 0:
            raise RecipeError(f"wudi: {name} {given[name]:g} is below 0. Give 0 or more.")
    return given


def own(values: Values, name: str) -> float:
    """Return a parameter of the solver, given or not."""
    return values[name] if name in values else OWN[values["solver"]][name]


def _memory(shape: tuple[int, ...], models: int) -> float:
    """Return the `Whole.memory`, as measured: A, its eigenvectors, and Adam's."""
    if len(shape) < 2:
        return 2.0 * math.prod(shape)
    rows, columns = shape[-2:]
    thin = is_thin(shape, models)
    side = min(columns, models * rows) if thin else columns
    square = 4.0 * side**2 + (2 * models * math.prod(shape[-2:]) if thin else 0)
    return 7.5 * math.prod(shape) + square


WUDI = aggregate(
    "wudi",
    wudi,
    {
        "solver": OneOf(
            "flow",
            ("flow", "ridge", "adam"),
            "closed form of gradient flow or of a ridge, or the published program's Adam",
        ),
        "time": Real(None, "flow: how long, in units of the mean eigenvalue; 2 if not given"),
        "ridge": Real(None, "ridge: in mean eigenvalues; .1 if not given"),
        "steps": Integer(None, 0, "adam: steps; 300 if not given"),
        "rate": Real(None, "adam: learning rate, in the unit of the weights; 1e-5 if not given"),
        "normalize": OneOf(
            "norms", ("norms", "none"), "whether task vectors count by 1 / |tau|^2; none: ACTMat"
        ),
    },
    turns=False,
    check=_check,
    memory=_memory,
    svds="1 of eigenvalues; with adam none, but a product (m x n) (n x n) for each step",
)

METHOD = Method(
    "wudi",
    Everything(),
    WUDI,
    "move the sum towards the matrix that interferes least with each task's inputs",
    "base + alpha * M, M from sum_t tau_t by gradient flow on "
    "sum_t |(M - tau_t) tau_t^T|^2 / |tau_t|^2",
    "Cheng et al., Whoever Started the Interference Should End It, ICML 2025, arXiv:2503.08099;"
    " ACTMat, arXiv:2604.01329",
    OF_MATRICES + " `solver: adam` is the published program, whose rate of 1e-5 fits task vectors"
    " of CLIP ViT-B/32 and no larger ones. The authors touch attention and MLP weights alone:"
    " docs/differences.md.",
)
