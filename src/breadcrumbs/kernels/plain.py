"""The hot operations in NumPy: what `compiled` computes, stated plainly, with the same bits.

Arrays hold *raw* weights of one run of entries: ``uint16`` (the bits of bfloat16), ``float32`` or
``float64``. ``base`` has shape (n,), ``models`` (G, n) for G models at once. The *key* of an entry
is the magnitude of its task vector: the bits of ``|model - base|`` as an unsigned integer, which
orders like the number. Differences are taken in float32 for keys (float64 if the weights are) and
in float64 for sums.

A *cut* is four integers ``(low, low_ties, high, high_ties)`` that state which ranks of a unit
stay: the keys between ``low`` and ``high``; of the entries equal to ``low`` all but the first
``low_ties``; of those equal to ``high`` the first ``high_ties``. -1 stands for all of them.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from breadcrumbs.draws import draws


def everything(key_bytes: int) -> tuple[int, int, int, int]:
    """Return the cut that keeps every key of that many bytes."""
    return 0, 0, (1 << (8 * key_bytes - 1)) - 1, -1


def nothing(key_bytes: int) -> tuple[int, int, int, int]:
    """Return the cut that keeps no key of that many bytes."""
    return (1 << (8 * key_bytes - 1)) - 1, -1, 0, 0


def widen(raw: np.ndarray) -> np.ndarray:
    """Return raw weights as floating point; bfloat16 bits become float32."""
    if raw.dtype == np.uint16:
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw


def magnitudes(base: np.ndarray, models: np.ndarray) -> np.ndarray:
    """Return the keys of ``models`` over ``base``, both raw; uint32 or uint64, shape of models."""
    with np.errstate(over="ignore", invalid="ignore"):
        tau = np.abs(widen(models) - widen(base))
    return tau.view(np.uint32 if tau.dtype == np.float32 else np.uint64)


def tally(base, models, chunk: int, brackets, counts, sizes, kept) -> None:
    """Count, chunk by chunk, keys around two brackets and collect those inside them.

    brackets: (G, 4) keys ``low, low_end, high, high_end``; one that ends before it begins asks for
    nothing. counts: (chunks, G, 4) int64, to which the numbers of keys < low, == low, < high, ==
    high are added; equal ones are counted only for a bracket of one key. kept: (G, capacity) keys,
    into which the keys from low to low_end and from high to high_end, unless the bracket is one
    key, are written in order. sizes: (chunks, G) int64, set to how many each chunk has of them,
    those included for which there was no room.
    """
    filled = np.zeros(len(models), np.int64)
    for i, start in enumerate(range(0, base.size, chunk)):
        run = slice(start, start + chunk)
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


def select(keys, low, end, place: int) -> tuple[int, int]:
    """Return (the key that is number ``place`` of those from low to end, its place among equals).

    Counts from 1; (0, 0) if there are fewer.
    """
    # NumPy's sort is several times faster here than its partition, which dislikes equal keys.
    inside = np.sort(keys[(keys >= low) & (keys <= end)])
    if place > inside.size:
        return 0, 0
    key = inside[place - 1]
    return int(key), place - int(np.searchsorted(inside, key))


def histogram(base, models, first, shift, counts) -> None:
    """Add to ``counts`` (G, bins) how many keys fall into bins of ``2**shift`` from ``first`` on.

    first: (G,) keys. Keys outside the bins are not counted.
    """
    bins = counts.shape[1]
    for t, keys in enumerate(magnitudes(base, models)):
        inside = keys[(keys >= first[t])] - first[t]
        inside >>= np.asarray(shift, keys.dtype)
        counts[t] += np.bincount(inside[inside < bins].astype(np.int64), minlength=bins)


def cut_units(base, models, unit: int, first: int, last: int) -> np.ndarray:
    """Return the cuts, (n/unit, G, 4) int64, that keep ranks ``first < rank <= last`` of each unit.

    Entries are ranked from 1 by (key, position). ``n`` is a multiple of ``unit``.
    """
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
    """Return which of the ``keys`` of one unit, or of its first part, the ``cut`` keeps."""
    low, low_ties, high, high_ties = (int(x) for x in cut)
    at_low, at_high = keys == low, keys == high
    keep_low = at_low & (np.cumsum(at_low) > (keys.size if low_ties < 0 else low_ties))
    keep_high = at_high & (np.cumsum(at_high) <= (keys.size if high_ties < 0 else high_ties))
    # Where both ends are the same key, a tie must pass both.
    return ((keys > low) | keep_low) & ((keys < high) | keep_high)


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
            _add(base[run], model[run], keep, weights[t], total[run], rest[run], inexact[run])


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
        _add(base, model, keep, weights[t], total, rest, inexact)


def drawn(n, keys, start, limits, t) -> np.ndarray:
    """Return which of n entries model t keeps."""
    if not limits.size or limits[t] == ALL:
        return np.ones(n, np.bool_)
    return draws(keys[t], start, n) < limits[t]


def _add(base, model, keep, weight, total, rest, inexact) -> None:
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


def two_sum(a, b, total):
    """Return the rounding error of ``total = a + b``, exactly (Knuth)."""
    back = total - a
    return (a - (total - back)) + (b - back)


def exact_pair(terms) -> tuple[np.ndarray, np.ndarray]:
    """Return (total, rest) of the sums over the first axis of float64 terms (T, n).

    total is the correctly rounded sum and rest what it leaves out, so neither depends on the order.
    """
    total, rest = np.zeros(terms.shape[1:]), np.zeros(terms.shape[1:])
    inexact = np.zeros(terms.shape[1:], np.bool_)
    for term in terms:
        before = total
        total = before + term
        error = two_sum(before, term, total)
        before = rest
        rest = before + error
        inexact |= two_sum(before, error, rest) != 0.0
    nearest = total + rest
    rest = two_sum(total, rest, nearest)
    for i in np.flatnonzero(inexact):
        column = terms[:, i].tolist()
        nearest[i] = math.fsum(column)
        rest[i] = math.fsum([*column, -nearest[i]])
    return nearest, rest


def exact_sum(terms, weights=None) -> np.ndarray:
    """Return the correctly rounded sums over the first axis of float64 terms (T, n).

    weights: (T,), by which the terms are multiplied first.
    """
    return exact_pair(terms if weights is None else weights[:, None] * terms)[0]


def elected(taus, weights, kind: int, majority: int, signed: bool) -> np.ndarray:
    """Return the steps of an election as `elect_band` has it, of float64 task vectors (T, n).

    weights: (T,), by which they are multiplied first. signed: whether a mean divides by the sum of
    the weights, 1 if that is 0, and not of their magnitudes.
    """
    terms = weights[:, None] * taus
    signs = np.sign(exact_sum(terms))
    signs[signs == 0] = majority
    agree = terms * signs > 0
    terms = np.where(agree, terms, 0.0)
    if kind == LARGEST:
        return signs * np.abs(terms).max(axis=0, initial=0.0) + 0.0  # no zero is negative
    step = exact_sum(terms)
    if kind == MEAN:
        share = exact_sum(np.where(agree, (weights if signed else np.abs(weights))[:, None], 0.0))
        step /= np.where(share == 0, 1.0, share)
    return step


def add_step(base, step) -> np.ndarray:
    """Return ``base + step``, both float64 (n,); without a step a zero keeps the base's sign."""
    return np.where(step == 0, base, base + step)


def shares(weights, signed: bool) -> np.ndarray:
    """Return, of each set of models as the bits of a number, what their mean divides by."""
    mine = weights if signed else np.abs(weights)
    sets = range(1 << len(mine))
    return np.array(
        [math.fsum(w for t, w in enumerate(mine.tolist()) if bits >> t & 1) for bits in sets]
    )


def keep_by_rank(base, model, unit: int, key, start: int, chances, divide, taus, kept) -> None:
    """Write what stays of ``model - base`` to float64 ``taus`` (n,), and to ``kept`` what that is.

    The entry of rank r, from 0 by (key, position), of each unit of ``unit`` entries stays if its
    draw is below ``floor(chances[r] * 2**32)``, and is divided by the chance if ``divide``. key and
    start: of the `draws`, for the first of the entries.
    """
    keys = magnitudes(base, model).reshape(-1, unit)
    ranks = np.empty(keys.shape, np.int64)
    order = np.argsort(keys, axis=1, kind="stable")
    np.put_along_axis(ranks, order, np.arange(unit)[None], axis=1)
    ranks = ranks.reshape(-1)
    limits = np.floor(chances * 2.0**32).astype(np.uint64)
    kept[:] = draws(key, start, base.size) < limits[ranks]
    np.subtract(widen(model), widen(base), out=taus, dtype=np.float64)
    if divide:
        taus /= chances[ranks]
    taus[~kept] = 0


#: The extent of no weights, as `merge_band` takes it.
NO_EXTENT = (0xFFFFFFFF, 0)


def extent(raw: np.ndarray) -> tuple[float, float]:
    """Return the smallest nonzero and the largest magnitude of contiguous raw weights.

    A NaN or infinity among them shows as a largest of nan or inf. Weights without a nonzero entry
    give (inf, 0).
    """
    bits = raw if raw.dtype == np.uint16 else raw.view(f"u{raw.itemsize}")
    bits = bits & np.asarray(np.iinfo(bits.dtype).max >> 1, bits.dtype)
    nonzero = bits[bits > 0]
    if not nonzero.size:
        return math.inf, 0.0
    return extent_of(np.array([nonzero.min() - 1, nonzero.max()]), raw.dtype)


def extent_of(pair: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    """Return the magnitudes whose bits are ``pair[0] + 1`` and ``pair[1]``."""
    if pair[1] == 0:
        return math.inf, 0.0
    bits = np.array([int(pair[0]) + 1, pair[1]], f"u{dtype.itemsize}")
    wide = widen(bits if dtype == np.uint16 else bits.view(dtype))
    return float(wide[0]), float(wide[1])


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
    return _finish_all(base, models, sums, alpha, extent, out)


def merge_drawn(
    base, models, keys, start, limits, weights, alpha: float, extent, out, kept
) -> tuple[float, bool]:
    """Like `merge_band`, for what `add_drawn` adds."""
    sums = _sums(base.size, weights)
    add_drawn(base, models, keys, start, limits, _ones(models, weights), *sums, kept)
    return _finish_all(base, models, sums, alpha, extent, out)


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
    _round_raw(np.where(step == 0, wide, wide + step), out)
    _widen_extent(base, models, extent)
    return float(np.einsum("i,i->", step, step)), bool(inexact.any())


def _add_whole(base, model, weight, total, rest, inexact) -> None:
    """Add all of a model; inexact also where the difference of two weights is."""
    _add(base, model, np.True_, weight, total, rest, inexact)
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


def _finish_all(base, models, sums, alpha, extent_bits, out) -> tuple[float, bool]:
    total, rest, inexact = sums
    if rest.size:
        settle(total, rest)
    merged = merge(base, total, rest, alpha)
    sign_zeros(merged, np.flatnonzero(merged == 0), base, models, total)
    _round_raw(merged, out)
    _widen_extent(base, models, extent_bits)
    return float(np.einsum("i,i->", total, total)), bool(inexact.any())


def _round_raw(merged, out) -> None:
    out[:] = round_to(merged, "BF16" if out.dtype == np.uint16 else "F32").view(out.dtype)


#: The limit of draws that keeps every entry.
ALL = 2**32 - 1

#: Entries whose inner products are added one after the other, and numbers that are added at once.
PART = 1 << 14
LANES = 256


def products(base, models, out) -> None:
    """Write the inner products of the base and the task vectors, in float64, part by part.

    out: (parts of `PART` entries, the last may be shorter, 1 + G, 1 + G). Of each part, lane j adds
    the products of entries j, j + LANES, ... in order; then halves of lanes are added up.
    """
    wide = widen(base).astype(np.float64)
    row_products(np.concatenate([wide[None], widen(models).astype(np.float64) - wide]), out)


def row_products(rows, out) -> None:
    """Write the inner products of float64 rows (R, n) to ``out`` (parts, R, R), as `products`."""
    for part, start in enumerate(range(0, rows.shape[1], PART)):
        mine = rows[:, start : start + PART]
        full = np.zeros((len(rows), -(-mine.shape[1] // LANES) * LANES))
        full[:, : mine.shape[1]] = mine
        lanes = np.zeros((len(rows), len(rows), LANES))
        for step in range(0, full.shape[1], LANES):
            now = full[:, step : step + LANES]
            lanes += now[:, None] * now[None]
        while lanes.shape[2] > 1:
            half = lanes.shape[2] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
        out[part] = lanes[..., 0]


def _widen_extent(base, models, extent_bits) -> None:
    for raw in (base, models):
        bits = (raw if raw.dtype == np.uint16 else raw.view(np.uint32)).astype(np.uint32)
        bits &= np.uint32(0x7FFF if raw.dtype == np.uint16 else 0x7FFFFFFF)
        nonzero = bits[bits > 0]
        extent_bits[0] = min(extent_bits[0], (nonzero - 1).min(initial=0xFFFFFFFF))
        extent_bits[1] = max(extent_bits[1], nonzero.max(initial=0))


#: The kinds of an election: what the step of an entry is of the task vectors of its elected sign.
MEAN, SUM, LARGEST = 0, 1, 2


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
    keep = _kept(base, models, unit, cuts)
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
        keep = _kept(base, models, unit, cuts)
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
    _round_raw(np.where(added == 0, wide, wide + added), out)
    _widen_extent(base, models, extent)
    votes = int(np.count_nonzero(total > 0)) - int(np.count_nonzero(total < 0))
    return float(np.einsum("i,i->", step, step)), votes, inexact


def _kept(base, models, unit: int, cuts) -> np.ndarray:
    """Return (G, n) which entries of the models the cuts keep."""
    keep = np.empty(models.shape, np.bool_)
    for t, model in enumerate(models):
        keys = magnitudes(base, model)
        for u in range(cuts.shape[0]):
            run = slice(u * unit, (u + 1) * unit)
            keep[t, run] = band(keys[run], cuts[u, t])
    return keep


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
    _round_raw(np.where(added == 0, wide, wide + added), out)
    _widen_extent(base, models, extent_bits)
    return float(np.einsum("i,i->", step, step))


def sign_zeros(merged, where, base, models, total) -> None:
    """Give the zeros of ``merged`` at positions ``where`` their sign, which addition cannot carry.

    Where all models hold zeros of one sign, that sign; else, where nothing is added, the base's;
    else what the addition gave. base, models: raw; total: the sums.
    """
    if not where.size:
        return
    sign = np.where(total[where] == 0, np.signbit(widen(base[where])), np.signbit(merged[where]))
    if len(models):
        wide = widen(models[:, where])
        signs = np.signbit(wide)
        same = ((wide == 0) & (signs == signs[0])).all(axis=0)
        sign = np.where(same, signs[0], sign)
    merged[where] = np.where(sign, -0.0, 0.0)


def round_to(merged: np.ndarray, dtype: str) -> np.ndarray:
    """Return float64 ``merged`` rounded once, to nearest even, to the dtype of that name."""
    if dtype == "F64":
        return merged
    with np.errstate(over="ignore"):
        if dtype == "F16":
            return merged.astype(np.float16)
        single = merged.astype(np.float32)
    if dtype == "F32":
        return single
    # A second rounding gives what one would if the first is to odd (Boldo and Melquiond 2008).
    bits = single.view(np.uint32)
    with np.errstate(invalid="ignore"):
        error = merged - single
    outward = (error > 0) == (bits < 0x80000000)
    even = (error != 0) & (bits & 1 == 0) & np.isfinite(single)
    bits[even & outward] += np.uint32(1)
    bits[even & ~outward] -= np.uint32(1)
    name = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}[dtype]
    with np.errstate(over="ignore"):
        return single.astype(getattr(ml_dtypes, name))
