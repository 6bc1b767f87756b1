"""What methods ask that look at each entry of all models, in NumPy."""

from __future__ import annotations

import numpy as np

from breadcrumbs.kernels.exact import two_sum
from breadcrumbs.kernels.numpy.raw import widen


def differences(base, models, wide, taus) -> None:
    """See `Entrywise.differences`."""
    wide[:] = widen(base)
    for model, tau in zip(models, taus, strict=True):  # fresh pages are few so
        np.subtract(widen(model), wide, out=tau)


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
    if bound > 0:
        shares = sizes * (1.0 / spread if spread > 0 else 0.0)
        limits = 1.001 * (_power(number * (shares * shares - 1)) * np.minimum(balances, 1.0))
        places = np.flatnonzero(~(limits + 1e-300 < bound))
        terms, balances, sizes = terms[places], balances[places], sizes[places]
    else:
        places = np.arange(terms.size)
    shares = sizes / spread if spread > 0 else np.zeros(sizes.size)
    return places.astype(np.uint32), terms, number * (shares * shares - 1), balances


def _power(exponents: np.ndarray) -> np.ndarray:
    """Return about the exponentials, but none below that of -693: right to 1e-4 of each."""
    whole = 1.5 * 2.0**52
    binary = np.maximum(exponents * float.fromhex("0x1.71547652b82fep+0"), -1000.0)
    shifted = binary + whole
    u = (binary - (shifted - whole)) * float.fromhex("0x1.62e42fefa39efp-1")
    found = 1 + u * (1 + u * (0.5 + u * (1 / 6 + u * (1 / 24))))
    return (found.view(np.uint64) + (shifted.view(np.uint64) << np.uint64(52))).view(np.float64)


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
