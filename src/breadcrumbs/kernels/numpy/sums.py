"""Sums of what stays of task vectors in NumPy, with what rounding them leaves over."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import ALL
from breadcrumbs.kernels.draws import draws
from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.kernels.numpy.ranks import band, magnitudes
from breadcrumbs.kernels.numpy.raw import round_raw, sign_zeros, widen, widen_extent


def add_band(base, models, unit, cuts, weights, total, rest, inexact) -> None:
    """See `Sums.add_band`."""
    for t, model in enumerate(models):
        keys, stop = magnitudes(base, model), 0
        for u in range(cuts.shape[0]):
            run = slice(stop, stop := stop + int(unit if np.isscalar(unit) else unit[u]))
            keep = band(keys[run], cuts[u, t])
            add(base[run], model[run], keep, weights[t], total[run], rest[run], inexact[run])


def add_drawn(base, models, keys, start, limits, weights, total, rest, inexact, kept) -> None:
    """See `Sums.add_drawn`."""
    for t, model in enumerate(models):
        keep = drawn(base.size, keys, start, limits, t)
        if limits.size:
            kept[t] += np.count_nonzero(keep)
        add(base, model, keep, weights[t], total, rest, inexact)


def drawn(n, keys, start, limits, t) -> np.ndarray:
    """See `Sums.drawn`."""
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
    """See `Sums.merge`."""
    wide = widen(base).astype(np.float64)
    step = alpha * total
    merged = wide + step
    if rest.size:
        merged += two_sum(wide, step, merged) + alpha * rest
    return merged


def merge_band(
    base, models, unit, cuts, weights, alpha: float, extent, out
) -> tuple[float, bool]:
    """See `Sums.merge_band`."""
    sums = _sums(base.size, weights)
    add_band(base, models, unit, cuts, _ones(models, weights), *sums)
    return finish_all(base, models, sums, alpha, extent, out)


def begin_band(
    base,
    models,
    chunk: int,
    brackets,
    weights,
    alpha: float,
    extent,
    out,
    counts,
    doubts,
    where,
    columns,
) -> tuple[float, bool, int]:
    """See `Sums.begin_band`."""
    total, rest, inexact = _sums(base.size, weights)
    doubtful = np.zeros(base.size, np.bool_)
    factors = _ones(models, weights)
    for t, keys in enumerate(magnitudes(base, models)):
        low, low_end, high, high_end = brackets[t]
        sure = np.ones(base.size, np.bool_)
        if low <= low_end:
            sure &= keys > low_end
            doubtful |= (keys >= low) & (keys <= low_end)
        if high <= high_end:
            sure &= keys < high
            doubtful |= (keys >= high) & (keys <= high_end)
        for column, bound, end in ((0, low, low_end), (2, high, high_end)):
            if bound <= end:
                below = np.flatnonzero(keys < bound) // chunk
                counts[:, t, column] += np.bincount(below, minlength=len(counts))
        add(base, models[t], sure, factors[t], total, rest, inexact)
    total[doubtful] = 0.0
    if rest.size:
        rest[doubtful] = 0.0
    squares, unknown = finish_all(base, models, (total, rest, inexact), alpha, extent, out)
    places = np.flatnonzero(doubtful)
    doubts[:] = np.bincount(places // chunk, minlength=doubts.size)
    places = places[: where.size]
    where[: places.size] = places
    columns[0, : places.size], columns[1:, : places.size] = base[places], models[:, places]
    return squares, unknown, int(doubts.sum())


def merge_drawn(
    base, models, keys, start, limits, weights, alpha: float, extent, out, kept
) -> tuple[float, bool]:
    """See `Sums.merge_drawn`."""
    sums = _sums(base.size, weights)
    add_drawn(base, models, keys, start, limits, _ones(models, weights), *sums, kept)
    return finish_all(base, models, sums, alpha, extent, out)


def combine(base, models, own: float, weights, factor: float, extent, out) -> tuple[float, bool]:
    """See `Sums.combine`."""
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
    """See `Sums.settle`."""
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
