"""Sums of what stays of task vectors in NumPy, with what rounding them leaves over."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.draws import draws
from breadcrumbs.kernels.plain.keys import band, magnitudes
from breadcrumbs.kernels.plain.raw import round_raw, sign_zeros, widen, widen_extent
from breadcrumbs.kernels.plain.terms import two_sum

#: The limit of draws that keeps every entry.
ALL = 2**32 - 1


def add_band(base, models, unit: int, cuts, weights, total, rest, inexact) -> None:
    """Add what the cuts keep of ``weight * (model - base)`` to ``total``, float64.

    cuts: (units, G, 4), one for each unit of ``unit`` entries (the last may be shorter).
    weights: (G,). ``rest`` and ``inexact``: empty, and then every weight is 1; or as long as
    ``total``, which then holds the leading part of the exact sum and ``rest`` what rounding it
    left over; ``inexact`` is set where even their sum is not exact.
    """
    for t, model in enumerate(models):
        keys = magnitudes(base, model)
        for u in range(cuts.shape[0]):
            run = slice(u * unit, min(base.size, (u + 1) * unit))
            keep = band(keys[run], cuts[u, t])
            add(base[run], model[run], keep, weights[t], total[run], rest[run], inexact[run])


def add_drawn(base, models, keys, start, limits, weights, total, rest, inexact, kept) -> None:
    """Like `add_band`, keeping the entries whose draw is below ``limits[t]``.

    keys (G,) uint64 and start: of the `draws` of each model, for the first of the entries. limits:
    (G,) uint32, or empty, and then everything is kept, as is with a limit of `ALL`. kept: (G,)
    int64, to which the numbers of entries kept are added unless that is all.
    """
    for t, model in enumerate(models):
        keep = drawn(base.size, keys, start, limits, t)
        if limits.size:
            kept[t] += np.count_nonzero(keep)
        add(base, model, keep, weights[t], total, rest, inexact)


def drawn(n, keys, start, limits, t) -> np.ndarray:
    """Return which of n entries model t keeps."""
    if not limits.size or limits[t] == ALL:
        return np.ones(n, np.bool_)
    return draws(keys[t], start, n) < limits[t]


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


def merge(base, total, rest, alpha: float) -> np.ndarray:
    """Return ``base + alpha * (total + rest)`` in float64; ``rest`` may be empty."""
    wide = widen(base).astype(np.float64)
    step = alpha * total
    merged = wide + step
    if rest.size:
        merged += two_sum(wide, step, merged) + alpha * rest
    return merged


def merge_band(
    base, models, unit: int, cuts, weights, alpha: float, extent, out
) -> tuple[float, bool]:
    """Write ``base + alpha * (weighted sum of what the cuts keep)``, rounded once, to raw ``out``.

    As `add_band`, `settle`, `merge` and `sign_zeros`, in one go. weights: (G,), or empty, and then
    they are all 1 and the result is right where the sums are provably exact, which ``extent`` helps
    to tell: (2,) uint32, whose first is lowered to the bits of the smallest nonzero magnitude minus
    1 and second raised to those of the largest. Returns the sum of squares of the sums, and whether
    a sum with weights could not be had exactly, so that the result does not hold.
    """
    sums = _sums(base.size, weights)
    add_band(base, models, unit, cuts, _ones(models, weights), *sums)
    return finish_all(base, models, sums, alpha, extent, out)


def merge_drawn(
    base, models, keys, start, limits, weights, alpha: float, extent, out, kept
) -> tuple[float, bool]:
    """Like `merge_band`, for what `add_drawn` adds."""
    sums = _sums(base.size, weights)
    add_drawn(base, models, keys, start, limits, _ones(models, weights), *sums, kept)
    return finish_all(base, models, sums, alpha, extent, out)


def combine(base, models, own: float, weights, factor: float, extent, out) -> tuple[float, bool]:
    """Write ``base + factor * (own * base + sum of weights * task vectors)`` to raw ``out``.

    weights: (G,), or empty, and then they are all 1, ``own`` is 0, and the result is right where
    the sums are provably exact. The sum is rounded to float64, then the whole to the output. Else
    as `merge_band`; but where nothing is added a zero keeps the base's sign.
    """
    total, rest, inexact = _sums(base.size, weights)
    for model, weight in zip(models, _ones(models, weights), strict=True):
        _add_whole(base, model, weight, total, rest, inexact)
    if weights.size and own != 0:
        _add_whole(np.zeros_like(base), base, own, total, rest, inexact)
    if weights.size:
        settle(total, rest)
    step = factor * total
    wide = widen(base).astype(np.float64)
    round_raw(np.where(step == 0, wide, wide + step), out)
    widen_extent(base, models, extent)
    return float(np.einsum("i,i->", step, step)), bool(inexact.any())


def _add_whole(base, model, weight, total, rest, inexact) -> None:
    """Add all of a model; inexact also where the difference of two weights is."""
    add(base, model, np.True_, weight, total, rest, inexact)
    if rest.size:
        x, y = widen(model).astype(np.float64), widen(base).astype(np.float64)
        inexact |= two_sum(x, -y, x - y) != 0.0


def _sums(n: int, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return total, rest and inexact as `add_band` takes them."""
    m = n if weights.size else 0
    return np.zeros(n), np.zeros(m), np.zeros(m, np.uint8)


def _ones(models, weights) -> np.ndarray:
    return weights if weights.size else np.ones(len(models))


def settle(total, rest) -> None:
    """Make ``total`` the correctly rounded ``total + rest``, and ``rest`` what is left."""
    nearest = total + rest
    rest[:] = two_sum(total, rest, nearest)
    total[:] = nearest


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
