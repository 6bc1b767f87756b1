"""Singular value calibration: directions that tasks have in common count once.

Singular Value Calibration (SVC), ICML 2026, arXiv:2602.05536. Of a merged matrix ``M = U S V^T``, a
direction ``u`` and a task ``tau``: ``s = <u^T M, u^T tau> / |u^T tau|^2`` is how many times as much
of the task's response the merged matrix has along ``u`` as the task itself. Each singular value is
divided by the mean over the tasks of ``max(svc_least, s)``.

A tensor that is no matrix is one row, so that all of the step is as long as the tasks', where the
paper leaves it. The result does not depend on the scale of ``M``, but where ``svc_least`` binds.
That is 1/T unless given; the authors give .1 and, after TSV-M, 1. A response of 0 has s = 0; theirs
divides by 1e-12 at least.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import RecipeError
from breadcrumbs.methods import algebra
from breadcrumbs.methods.aggregates.singular import EPS, triplets
from breadcrumbs.methods.aggregates.turns import Taus
from breadcrumbs.methods.finishes import Finish
from breadcrumbs.methods.parameters import Real, Values


def svc(step: np.ndarray, taus: Taus, values: Values) -> np.ndarray:
    """Return the matrix with its singular values divided."""
    least = values.get("svc_least")
    least = 1 / len(taus) if least is None else least
    if least <= 0:
        raise RecipeError(f"svc_least: {least:g} is not above 0, and is divided by. Give 0.1.")
    u, s, v = triplets(step)
    over = np.zeros(s.size)
    for tau in taus:
        mine = algebra.product(u.T, tau)
        sizes = np.einsum("ij,ij->i", mine, mine)
        along = s * np.einsum("ij,ij->i", v, mine)
        seen = sizes > EPS**2 * np.vdot(tau, tau)
        del tau, mine  # before the next one is made
        over += np.maximum(least, np.where(seen, along / np.where(seen, sizes, 1), 0))
    return algebra.product(u * (s * len(taus) / over), v)


SVC = Finish(
    svc,
    "svc",
    "divide each singular value by how often the tasks have it in common",
    "U diag(s_r / mean_t max(svc_least, <u_r^T M, u_r^T tau_t> / |u_r^T tau_t|^2)) V^T",
    "Singular Value Calibration, ICML 2026, arXiv:2602.05536",
    {"svc_least": Real(None, "svc: least count of a direction; 1 / models if not given")},
    rows=True,
    algebra=True,
)
