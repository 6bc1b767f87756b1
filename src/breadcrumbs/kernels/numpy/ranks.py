"""Keys and ranks in NumPy: which entries the cuts of their units keep."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from breadcrumbs.kernels.bounds import everything, nothing
from breadcrumbs.kernels.numpy.raw import widen


def magnitudes(base: np.ndarray, models: np.ndarray) -> np.ndarray:
    """See `Ranks.magnitudes`."""
    with np.errstate(over="ignore", invalid="ignore"):
        tau = np.abs(widen(models) - widen(base))
    return tau.view(np.uint32 if tau.dtype == np.float32 else np.uint64)


def runs_of(n: int, size) -> Iterator[slice]:
    """Yield the runs of n entries: of ``size`` each, or of as many as an array of sizes says."""
    sizes = size if isinstance(size, np.ndarray) else [size] * -(-n // size)
    stop = 0
    for one in sizes:
        yield slice(stop, stop := stop + int(one))


def tally(base, models, chunk, brackets, counts, sizes, kept) -> None:
    """See `Ranks.tally`."""
    filled = np.zeros(len(models), np.int64)
    for i, run in enumerate(runs_of(base.size, chunk)):
        for t, keys in enumerate(magnitudes(base[run], models[:, run])):
            inside = np.zeros(keys.size, np.bool_)
            for column in (0, 2):
                low, end = brackets[t, column : column + 2]
                if low > end:
                    continue
                counts[i, t, column] += np.count_nonzero(keys < low)
                if low == end:
                    counts[i, t, column + 1] += np.count_nonzero(keys == low)
                else:
                    inside |= (keys >= low) & (keys <= end)
            found = keys[inside]
            room = max(0, min(found.size, kept.shape[1] - filled[t]))
            kept[t, filled[t] : filled[t] + room] = found[:room]
            filled[t] += found.size
            sizes[i, t] = found.size


def key_of_rank(keys, rank: int, hint: int) -> int:
    """See `Ranks.key_of_rank`."""
    return int(np.partition(keys, rank - 1, axis=None)[rank - 1])


def select(keys, low, end, place: int) -> tuple[int, int]:
    """See `Ranks.select`."""
    # NumPy's sort is several times faster here than its partition, which dislikes equal keys.
    inside = np.sort(keys[(keys >= low) & (keys <= end)])
    if place > inside.size:
        return 0, 0
    key = inside[place - 1]
    return int(key), place - int(np.searchsorted(inside, key))


def count_runs(keys, starts, sizes, low: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """See `Ranks.count_runs`."""
    equal, below = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    for run, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        mine = keys[start : start + size]
        equal[run] = np.count_nonzero(mine == key)
        below[run] = np.count_nonzero((mine >= low) & (mine < key))
    return equal, below


def histogram(base, models, first, shift, counts) -> None:
    """See `Ranks.histogram`."""
    bins = counts.shape[1]
    for t, keys in enumerate(magnitudes(base, models)):
        inside = keys[(keys >= first[t])] - first[t]
        inside >>= np.asarray(shift, keys.dtype)
        counts[t] += np.bincount(inside[inside < bins].astype(np.int64), minlength=bins)


def cut_units(base, models, unit: int, first: int, last: int) -> np.ndarray:
    """See `Ranks.cut_units`."""
    models_number, n = models.shape
    cuts = np.empty((n // unit, models_number, 4), np.int64)
    key_bytes = 8 if base.dtype == np.float64 else 4
    if first >= last:
        cuts[:] = nothing(key_bytes)
        return cuts
    for t in range(models_number):
        keys = magnitudes(base, models[t]).reshape(-1, unit)
        cuts[:, t] = everything(key_bytes)
        if last < unit:
            cuts[:, t, 2:] = _rank(keys, last)
        if first > 0:
            cuts[:, t, :2] = _rank(keys, first)
    return cuts


def _rank(keys: np.ndarray, rank: int) -> np.ndarray:
    """Return (units, 2): the key of that rank, and its place among the keys equal to it."""
    key = np.partition(keys, rank - 1, axis=1)[:, rank - 1]
    below = np.count_nonzero(keys < key[:, None], axis=1)
    return np.stack([key.astype(np.int64), rank - below], axis=1)


def band(keys: np.ndarray, cut) -> np.ndarray:
    """See `Ranks.band`."""
    low, low_ties, high, high_ties = (int(x) for x in cut)
    at_low, at_high = keys == low, keys == high
    keep_low = at_low & (np.cumsum(at_low) > (keys.size if low_ties < 0 else low_ties))
    keep_high = at_high & (np.cumsum(at_high) <= (keys.size if high_ties < 0 else high_ties))
    # Where both ends are the same key, a tie must pass both.
    return ((keys > low) | keep_low) & ((keys < high) | keep_high)


def kept_of(base, models, unit: int, cuts) -> np.ndarray:
    """Return (G, n) which entries of the models the cuts keep."""
    keep = np.empty(models.shape, np.bool_)
    for t, model in enumerate(models):
        keys = magnitudes(base, model)
        for u in range(cuts.shape[0]):
            run = slice(u * unit, (u + 1) * unit)
            keep[t, run] = band(keys[run], cuts[u, t])
    return keep
