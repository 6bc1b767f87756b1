"""Elections of signs among what stays of task vectors in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.plain.keys import kept_of
from breadcrumbs.kernels.plain.raw import round_raw, widen, widen_extent
from breadcrumbs.kernels.plain.sums import drawn
from breadcrumbs.kernels.plain.terms import LARGEST, MEAN, two_sum


def elect_band(
    base,
    models,
    unit: int,
    cuts,
    kind: int,
    majority: int,
    alpha: float,
    extent,
    out,
    found,
    where,
    other,
) -> tuple[float, int, int, float]:
    """Write ``base + alpha * step``, rounded once, to raw ``out``; `merge_band` for elections.

    The elected sign of an entry is that of the sum of what the cuts keep of all models, and
    ``majority`` (1 or -1) where the sum is 0. The step is, of the kept task vectors of that sign,
    the mean (``kind`` 0), the sum (1) or the one of the largest magnitude (2); 0 if there is none,
    and then zeros keep the base's sign. Up to 32 models, all of weight 1. found: (n,) float64, set
    to the steps, or empty. where: positions, and other: raw weights of the output, for the entries
    whose sum is 0 of terms that are not, and what they would be with the other majority, as far as
    there is room; or both are empty. Returns the sum of squares of the steps, and, unless these are
    empty, how many more entries elect 1 than -1, how many are undecided, and how much larger the
    squares would be. The votes are right where the sums are provably exact.
    """
    keep = kept_of(base, models, unit, cuts)
    squares = _elect_all(base, models, keep, kind, majority, alpha, extent, out, found)
    if not where.size:
        return squares, 0, 0, 0.0
    terms = np.where(keep, widen(models).astype(np.float64) - widen(base).astype(np.float64), 0.0)
    total = terms.sum(axis=0)
    votes = int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
    undecided = np.flatnonzero((total == 0) & terms.any(axis=0))
    again = np.empty_like(out)
    rest = kind, -majority, alpha, extent, again, np.empty(0)
    more = _elect_all(base, models, keep, *rest) - squares
    room = undecided[: where.size]
    where[: room.size], other[: room.size] = room, again[room]
    return squares, votes, undecided.size, more


def elect_drawn(
    base, models, keys, start, limits, kind, majority, alpha: float, extent, out, found, kept
) -> float:
    """Like `elect_band`, for what `add_drawn` adds."""
    keep = [drawn(base.size, keys, start, limits, t) for t in range(len(models))]
    keep = np.array(keep, np.bool_).reshape(models.shape)
    if limits.size:
        kept += np.count_nonzero(keep, axis=1)
    return _elect_all(base, models, keep, kind, majority, alpha, extent, out, found)


#: Models that `elect_weighted` takes for a mean: their subsets are looked up.
SUBSETS = 10


def elect_weighted(
    base,
    models,
    unit,
    cuts,
    drawn_,
    kind,
    majority,
    weights,
    shares,
    alpha,
    extent,
    out,
    found,
    kept,
) -> tuple[float, int, bool]:
    """Like `elect_band` or, with no cuts, `elect_drawn` of (keys, start, limits), with weights.

    weights: (G,), by which the task vectors are multiplied before the election. shares: of each set
    of models, as the bits of a number, what the mean of theirs is divided by (1 if that is 0); one
    entry for other kinds. Returns the squares, how many more entries elect 1 than -1, and whether a
    sum could not be had exactly, so that the result does not hold.
    """
    keys, start, limits = drawn_
    if len(cuts):
        keep = kept_of(base, models, unit, cuts)
    else:
        keep = [drawn(base.size, keys, start, limits, t) for t in range(len(models))]
        keep = np.array(keep, np.bool_).reshape(models.shape)
        kept += np.count_nonzero(keep, axis=1) if limits.size else 0
    wide = widen(base).astype(np.float64)
    sides, bits = np.zeros((2, 3, base.size)), np.zeros((2, base.size), np.int64)
    inexact = False
    for t, (model, mine) in enumerate(zip(models, keep, strict=True)):
        tau = np.where(mine, widen(model).astype(np.float64) - wide, 0.0)
        for (total, rest, extreme), voters, sign in zip(sides, bits, (1, -1), strict=True):
            term = np.maximum(sign * weights[t] * tau, 0.0)
            before = total.copy()
            total += term
            error = two_sum(before, term, total)
            before = rest.copy()
            rest += error
            inexact |= bool(two_sum(before, error, rest).any())
            np.maximum(extreme, term, out=extreme)
            voters |= (term > 0).astype(np.int64) << t
    (up, up_rest, highest), (down, down_rest, lowest) = sides
    total, rest = up - down, up_rest - down_rest
    error = two_sum(up, -down, total)
    inexact |= bool(two_sum(up_rest, -down_rest, rest).any())
    more = error + rest
    inexact |= bool(two_sum(error, rest, more).any())
    total = total + more
    wins = (total > 0) | ((total == 0) & (majority > 0))
    if kind == LARGEST:
        step = np.where(wins, highest, -lowest)
    else:
        step = np.where(wins, up + up_rest, -(down + down_rest))
    if kind == MEAN:
        share = shares[np.where(wins, *bits)]
        step /= np.where(share == 0, 1.0, share)
    if found.size:
        found[:] = step
    added = alpha * step
    round_raw(np.where(added == 0, wide, wide + added), out)
    widen_extent(base, models, extent)
    votes = int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
    return float(np.einsum("i,i->", step, step)), votes, inexact


def _elect_all(base, models, keep, kind, majority, alpha, extent_bits, out, found) -> float:
    wide = widen(base).astype(np.float64)
    total, size, above, below = (np.zeros(base.size) for _ in range(4))
    highest, lowest = total, total
    for model, mine in zip(models, keep, strict=True):
        term = np.where(mine, widen(model).astype(np.float64) - wide, 0.0)
        total = total + term
        size += np.abs(term)
        above += term > 0
        below += term < 0
        highest, lowest = np.maximum(highest, term), np.minimum(lowest, term)
    up = (total > 0) | ((total == 0) & (majority > 0))
    if kind == LARGEST:
        step = np.where(up, highest, lowest)
    else:  # the terms of one sign are half of what all and their magnitudes come to
        step = 0.5 * (total + np.where(up, size, -size))
    if kind == MEAN:
        step /= np.maximum(np.where(up, above, below), 1.0)
    if found.size:
        found[:] = step
    added = alpha * step
    round_raw(np.where(added == 0, wide, wide + added), out)
    widen_extent(base, models, extent_bits)
    return float(np.einsum("i,i->", step, step))
