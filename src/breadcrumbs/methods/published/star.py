"""STAR: the mean of task vectors cut to their leading singular values, which are scaled up.

Lee et al., "STAR: Spectral Truncation and Rescale for Model Merging", NAACL 2025,
arXiv:2502.10339.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.methods import Everything, Fraction, Method, Values, algebra
from breadcrumbs.methods.aggregates.matrices import OF_MATRICES, aggregate, of_svd
from breadcrumbs.methods.aggregates.singular import left
from breadcrumbs.methods.aggregates.turns import Taus


def cut(tau: np.ndarray, eta: float) -> np.ndarray:
    """Return a matrix of the fewest leading triplets that hold ``eta`` of the nuclear norm.

    Their singular values are scaled up to the whole nuclear norm. eta 0: one triplet.
    """
    if tau.shape[0] > tau.shape[1]:
        return cut(tau.T, eta).T
    u, s = left(tau)
    if not s.size:
        return np.zeros(tau.shape)
    held = np.cumsum(s)
    rank = min(int(np.count_nonzero(held < eta * held[-1])) + 1, s.size)
    u = u[:, :rank]
    return algebra.product(u * (held[-1] / held[rank - 1]), algebra.product(u.T, tau))


def star(taus: Taus, values: Values) -> np.ndarray:
    """Return the mean of the task vectors ``(T, m, n)``, each `cut` to ``eta``.

    The paper has no weights: here they multiply the task vectors; they do not divide.
    """
    total = np.zeros(taus.shape[1:])
    for tau in taus:
        total += cut(tau, float(values["eta"]))
    return total / len(taus)


def caution(values: Values, models: int) -> str:
    """Return a warning where what is kept is stepped along in full.

    Measured on fine-tunings of language models: 0.5 of it ended above each base, all of it below
    most. On encoders of images and sentences 0.7 was as good or better.
    """
    eta, alpha = float(values["eta"]), values["alpha"]
    if abs(alpha) <= 0.7 or eta >= 1:
        return ""
    times = f"up to {1 / eta:.2g} times" if eta else "many times"
    return (
        f"star makes the directions that it keeps {times} as long, more than language models"
        f" tolerate,"
        " so the result may do worse than the base: give a smaller alpha, such as 0.5"
    )


STAR = aggregate(
    "star",
    star,
    {
        "eta": Fraction("0.4", "fraction of the sum of singular values that is kept"),
    },
    svds="T",
    directions=True,
    memory=of_svd(3, 5.5),
)

METHOD = Method(
    "star",
    Everything(),
    STAR,
    "cut each task vector to its leading singular values, scale them up, take the mean",
    "base + alpha * mean_t(|s|_1 / |s_1..r|_1 * U_r diag(s_1..r) V_r^T), "
    "r least with |s_1..r|_1 >= eta |s|_1",
    "Lee et al., STAR, NAACL 2025, arXiv:2502.10339",
    OF_MATRICES,
    caution,
)
