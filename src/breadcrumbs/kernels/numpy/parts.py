"""The parts that sums of task vectors are merged in, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.kernels.numpy.ranks import band, magnitudes, runs_of
from breadcrumbs.kernels.numpy.raw import round_raw, sign_zeros, widen, widen_extent


def add_band(base, models, unit, cuts, weights, total, rest, inexact) -> None:
    """See `Sums.add_band`."""
    for t, model in enumerate(models):
        keys = magnitudes(base, model)
        for u, run in enumerate(runs_of(base.size, unit)):
            keep = band(keys[run], cuts[u, t])
            add(base[run], model[run], keep, weights[t], total[run], rest[run], inexact[run])


def add(base, model, keep, weight, total, rest, inexact) -> None:
    """Add what is kept of one model's task vector, times its weight, to the sums (n,).

    rest, inexact: empty where weights are 1, and sums of float32 differences are exact.
    """
    x, y = widen(model).astype(np.float64), widen(base).astype(np.float64)
    tau = x - y
    if not rest.size:
        total += np.where(keep, tau, 0.0)
        return
    lost = two_sum(x, -y, tau)
    term = np.where(keep, weight * tau, 0.0)
    lost = np.where(keep, weight * lost, 0.0)
    before = total.copy()
    total += term
    error = two_sum(before, term, total)
    before = rest + error
    again = two_sum(rest, error, before)
    rest[:] = before + lost
    inexact |= (again != 0.0) | (two_sum(before, lost, rest) != 0.0)


def settle(total, rest) -> None:
    """See `Sums.settle`."""
    nearest = total + rest
    rest[:] = two_sum(total, rest, nearest)
    total[:] = nearest


def merge(base, total, rest, alpha: float) -> np.ndarray:
    """See `Sums.merge`."""
    wide = widen(base).astype(np.float64)
    step = alpha * total
    merged = wide + step
    if rest.size:
        merged += two_sum(wide, step, merged) + alpha * rest
    return merged


def sums_of(n: int, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return total, rest and inexact as `add_band` takes them."""
    m = n if weights.size else 0
    return np.zeros(n), np.zeros(m), np.zeros(m, np.uint8)


def ones_of(models, weights) -> np.ndarray:
    """Return the weights, or 1 for each model where there are none."""
    return weights if weights.size else np.ones(len(models))


def finish_all(base, models, sums, alpha, extent_bits, out) -> tuple[float, bool]:
    """Write ``base + alpha * sums`` to raw ``out``; return its sum of squares, and whether the sums
    may be inexact."""
    total, rest, inexact = sums
    if rest.size:
        settle(total, rest)
    merged = merge(base, total, rest, alpha)
    sign_zeros(merged, np.flatnonzero(merged == 0), base, models, total)
    round_raw(merged, out)
    widen_extent(base, models, extent_bits)
    return float(np.einsum("i,i->", total, total)), bool(inexact.any())
