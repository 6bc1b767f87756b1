"""SCE: select entries by variance, calculate weights from energies, erase the minority's sign.

Wan et al., "FuseChat: Knowledge Fusion of Chat Models", 2024, arXiv:2408.07990.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from breadcrumbs.kernels import choose
from breadcrumbs.methods import (
    COUNTS,
    Everything,
    Fraction,
    Method,
    Real,
    Values,
    Whole,
    count,
    floored,
)
from breadcrumbs.methods.aggregates.matrices import present


def selected(taus: np.ndarray, density: Decimal, counts: str = "decimal") -> np.ndarray:
    """Return the mask of the fraction ``density`` of largest variance over the models.

    Of the entries whose variance is not 0. taus: ``(T, n)``. Equal variances rank by position, the
    later entry as the larger.
    """
    # Sorted, the variance of an entry has the same bits in any order of the models; less the
    # smallest, it is exactly 0 where all are equal, and loses little to the difference. Without a
    # division, it is exact for numbers of few digits, so that equal ones are equal.
    ordered = np.sort(taus, axis=0)
    ordered -= ordered[0].copy()
    variance = len(taus) * (ordered * ordered).sum(axis=0) - ordered.sum(axis=0) ** 2
    changed = int(np.count_nonzero(variance))
    number = floored(density, changed) if counts == "mergekit" else count(density, changed)
    if number == 0:
        return np.zeros(variance.shape, bool)
    last = np.partition(variance, variance.size - number)[variance.size - number]
    mask = variance > last
    equal = np.flatnonzero(variance == last)
    mask[equal[equal.size - (number - int(np.count_nonzero(mask))) :]] = True
    return mask


def combine(
    base: np.ndarray, taus: np.ndarray, weights: Sequence[float], values: Values
) -> np.ndarray:
    """Return the mean, weighted by energy, of the selected entries that have the elected sign.

    Of one tensor, of any shape. The energy of a model is its sum of squares after selection. An
    entry that no model has with the elected sign (+ where the sum is 0) is 0. Equal energies are
    taken if their means over the entries sum to less than ``guard``: 1e-6 in mergekit, where most
    fine-tunings are below, here 0; nor is an entry divided by less. Neither has other weights: here
    they multiply the task vectors.
    """
    taus = present(taus, weights)
    taus = taus.reshape(len(taus), base.size)
    if not taus.size:
        return np.zeros(base.shape)
    if values["density"] < 1:
        taus *= selected(taus, values["density"], values["counts"])
    energies = [float(np.vdot(tau, tau)) for tau in taus]
    if math.fsum(energies) < values["guard"] * base.size:
        energies = [1.0] * len(taus)
    positive = choose().exact_sum(taus) >= 0
    kept, over = np.zeros(base.size), np.zeros(base.size)
    for tau, energy in zip(taus, energies, strict=True):
        share = energy / math.fsum(energies) if energy else 0.0
        agrees = np.where(positive, tau > 0, tau < 0)
        over += share * agrees
        tau *= share * agrees
        kept += tau
    over[over == 0] = 1
    np.maximum(over, values["guard"], out=over)
    return (kept / over).reshape(base.shape)


SCE = Whole(
    combine=combine,
    parameters={
        "density": Fraction("1", "fraction of entries kept, those of largest variance"),
        "counts": COUNTS,
        "guard": Real(0.0, "mean energy below which models count alike; 1e-6 in mergekit"),
    },
    svds="none",
    memory=lambda shape, models: math.prod(shape) * (2 * models + 6),
    name="sce",
)

METHOD = Method(
    "sce",
    Everything(),
    SCE,
    "select entries by variance, weight by energy, erase the minority's sign",
    "base + sum_t e_t a_t tau_t / sum_t e_t a_t, e_t = |tau_t|^2 after selection, "
    "a_t = [tau_t has the sign of sum tau]",
    "Wan et al., FuseChat, 2024, arXiv:2408.07990",
)
