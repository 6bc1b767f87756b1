"""Task Arithmetic in the Trust Region: add the task vectors where they conflict least.

Sun et al., "Task Arithmetic in Trust Region", ICLR 2025, arXiv:2501.15065, without data: the task
vector stands for its gradient. Conflict: ``Omega = (sum |tau|)^2 - sum |tau|^2``, twice the sum of
the products of all pairs; it is added up pair by pair, which loses nothing to cancellation, in
float64 and from the smallest magnitude up, so that the order of the models does not matter. The
fraction ``quantile`` of all entries of the model with the least Omega stays; equal ones rank by
position.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from breadcrumbs.methods import (
    AUTO,
    PLACES,
    Cut,
    Elementwise,
    Entries,
    Everything,
    Extent,
    Factor,
    Fold,
    Fraction,
    Method,
    Values,
    count,
    select,
)


def omega(entries: Entries) -> np.ndarray:
    """Return the conflict (n,) of the weighted task vectors."""
    return entries.kernels.conflicts(entries.taus, entries.weights, entries.narrow)


def _prepare(extent: Extent, values: Values) -> Generator[Fold, Any, Cut]:
    ranks = [[count(values["quantile"], extent.size)]]
    cuts = yield from select(lambda entries: omega(entries)[None], extent, ranks)
    return cuts[0][0]


def _combine(entries: Entries, values: Values) -> np.ndarray:
    stays = entries.known.before(entries.start, omega(entries))
    total = entries.kernels.exact_sum(entries.taus, entries.weights)
    return np.where(stays, total, 0.0)


TATR = Elementwise(
    combine=_combine,
    parameters={
        "quantile": Fraction("0.99", "fraction of entries kept, those with the least conflict"),
        "alpha": Factor(AUTO, "factor of the masked sum"),
    },
    prepare=_prepare,
    passes=lambda values: PLACES,
    name="tatr",
)

METHOD = Method(
    "tatr",
    Everything(),
    TATR,
    "add the task vectors, except for the entries where they conflict most",
    "base + alpha * [Omega has rank <= floor(quantile N)] * sum_t w_t tau_t, "
    "Omega = (sum_t |w_t tau_t|)^2 - sum_t |w_t tau_t|^2",
    "Sun et al., Task Arithmetic in Trust Region, ICLR 2025, arXiv:2501.15065",
    "Without data: task vectors stand for gradients. Equal Omega rank by position; the"
    " program keeps what is strictly below the value of that rank, which may be nothing.",
)
