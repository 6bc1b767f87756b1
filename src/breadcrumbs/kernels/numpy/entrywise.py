"""What methods ask that look at each entry of all models, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.constants import LARGEST
from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.kernels.numpy.raw import widen
from breadcrumbs.kernels.numpy.terms import elected, exact_sum


def differences(base, models, wide, taus) -> bool:
    """See `Entrywise.differences`."""
    wide[:] = widen(base)
    finite = bool(np.isfinite(wide).all())
    for model, tau in zip(models, taus, strict=True):  # fresh pages are few so
        finite &= bool(np.isfinite(widen(model)).all())
        np.subtract(widen(model), wide, out=tau)
    return finite


def sift(values, low: float, high: float) -> tuple[int, np.ndarray, np.ndarray]:
    """See `Entrywise.sift`."""
    places = np.flatnonzero((values >= low) & (values <= high))
    return int(np.count_nonzero(values < low)), values[places], places.astype(np.uint32)


def conflicts(taus, weights, narrow: bool) -> np.ndarray:
    """See `Entrywise.conflicts`."""
    sizes = np.abs(taus)
    if narrow:
        sizes = sizes.astype(np.float32).astype(np.float64)
    total, below = np.zeros(taus.shape[1]), np.zeros(taus.shape[1])
    for size in np.sort(np.abs(weights)[:, None] * sizes, axis=0):
        total += size * below
        below += size
    return 2 * total


def variances(taus, weights) -> np.ndarray:
    """See `Entrywise.variances`."""
    ordered = np.sort(weights[:, None] * taus, axis=0)
    sums, squares = np.zeros(taus.shape[1]), np.zeros(taus.shape[1])
    for row in ordered:
        above = row - ordered[0]
        sums += above
        squares += above * above
    return len(taus) * squares - sums * sums


def claims(taus, weights, total, rest, ps, qs) -> tuple[np.ndarray, int, int]:
    """See `Entrywise.claims`."""
    votes = np.zeros(taus.shape[1], np.int32)
    for tau, weight, p, q in zip(taus, weights, ps, qs, strict=True):
        term = weight * tau
        others = total - term
        others += rest + two_sum(total, -term, others)
        votes += q * np.abs(term) > p * np.abs(others)
    moved = taus.any(axis=0)
    return votes, int(np.count_nonzero(moved)), int(np.count_nonzero(moved & (votes == 0)))


def contend(
    taus, weight: float, sums, low: float, high: float, number: int, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """See `Entrywise.contend`."""
    terms = weight * taus
    balances = terms * sums
    first = min(low, high)
    spread = high - first
    sizes = np.clip(np.abs(terms), low, high) - first
    if bound > 0 and number <= 1000:
        shares = (sizes * (1.0 / spread if spread > 0 else 0.0)).astype(np.float32)
        with np.errstate(all="ignore"):
            rate = np.float64(1.0) / bound
            multiples = (balances * rate).astype(np.float32)
            limits = _limits(np.float32(number) * (shares * shares - 1), multiples)
            places = np.flatnonzero(~(limits < 1))
        terms, balances, sizes = terms[places], balances[places], sizes[places]
    else:
        places = np.arange(terms.size)
    shares = sizes / spread if spread > 0 else np.zeros(sizes.size)
    return places.astype(np.uint32), terms, number * (shares * shares - 1), balances


def _limits(exponents, factors) -> np.ndarray:
    """Return about 1.001 times the exponentials times the factors, all float32."""
    one = np.float32
    binary = np.maximum(exponents * one(float.fromhex("0x1.715476p+0")), one(-120))
    shifted = binary + one(1.5 * 2**23)
    u = (binary - (shifted - one(1.5 * 2**23))) * one(float.fromhex("0x1.62e43p-1"))
    found = 1 + u * (1 + u * (one(0.5) + u * (one(1 / 6) + u * one(1 / 24))))
    power = (found.view(np.uint32) + (shifted.view(np.uint32) << 23)).view(np.float32)
    return one(1.001) * power * factors


def add_units(values, units) -> None:
    """See `Entrywise.add_units`."""
    bits = np.ascontiguousarray(values).view(np.uint64)
    exponents = (bits >> np.uint64(52)).astype(np.int64) & 0x7FF
    whole = (bits & np.uint64((1 << 52) - 1)).astype(np.int64)
    whole |= (exponents > 0).astype(np.int64) << 52
    whole[bits >> np.uint64(63) > 0] *= -1
    places = np.maximum(exponents, 1) + 51
    # Both halves of the mantissas add up exactly in float64.
    for half, column in ((whole >> 26, 0), (whole & ((1 << 26) - 1), 1)):
        units[:, column] += np.bincount(places, half, minlength=len(units)).astype(np.int64)


def exact_at(n: int, places, values) -> np.ndarray:
    """See `Entrywise.exact_at`."""
    terms = np.zeros((len(places), n))
    for term, at, mine in zip(terms, places, values, strict=True):
        term[at] = mine
    return exact_sum(terms)


def unify(taus, weights, row: int = -1) -> np.ndarray:
    """See `Entrywise.unify`."""
    found = elected(taus, weights, LARGEST, -1, False)
    if row < 0:
        return found
    term = weights[row] * taus[row]
    return np.where(((term > 0) & (found > 0)) | ((term < 0) & (found < 0)), found, 0.0)
