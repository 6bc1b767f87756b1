"""What methods ask that look at each entry of all models."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.native.library import at, flat, function, integer, number, rows, takes
from breadcrumbs.kernels.numpy import entrywise as numpy_entrywise

#: Entries of a block in C.
_BLOCK = 512
#: Of more models than these, sorting rows against each other takes longer than sorting entries.
_FEW = 32


def differences(base, models, wide, taus) -> bool:
    """See `Entrywise.differences`."""
    if not takes(base, wide) or (taus.shape[1] > 1 and taus.strides[1] != taus.itemsize):
        return numpy_entrywise.differences(base, models, wide, taus)
    base, (models, stride) = flat(base), rows(models)
    finite = function("differences", base.itemsize, ctypes.c_int)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        at(wide),
        at(taus),
        integer(taus.strides[0] // taus.itemsize),
    )
    return bool(finite)


def sift(values, low: float, high: float) -> tuple[int, np.ndarray, np.ndarray]:
    """See `Entrywise.sift`."""
    values = flat(values, np.float64)
    kept, places = np.empty(values.size), np.empty(values.size, np.uint32)
    below = integer()
    many = function("sift", 4, integer)(
        integer(values.size),
        at(values),
        number(low),
        number(high),
        at(kept),
        at(places),
        ctypes.byref(below),
    )
    return below.value, kept[:many], places[:many]


def conflicts(taus, weights, narrow: bool) -> np.ndarray:
    """See `Entrywise.conflicts`."""
    if len(taus) > _FEW or taus.dtype != np.float64:
        return numpy_entrywise.conflicts(taus, weights, narrow)
    (taus, stride), sizes = rows(taus), np.abs(weights)
    room, found = np.empty((len(taus), _BLOCK)), np.empty(taus.shape[1])
    function("conflicts", 4)(
        integer(found.size),
        integer(len(taus)),
        at(taus),
        stride,
        at(sizes),
        ctypes.c_int(narrow),
        at(room),
        at(found),
    )
    return found


def variances(taus, weights) -> np.ndarray:
    """See `Entrywise.variances`."""
    if not 0 < len(taus) <= _FEW or taus.dtype != np.float64:
        return numpy_entrywise.variances(taus, weights)
    (taus, stride), weights = rows(taus), flat(weights, np.float64)
    room, found = np.empty((len(taus), _BLOCK)), np.empty(taus.shape[1])
    function("variances", 4)(
        integer(found.size),
        integer(len(taus)),
        at(taus),
        stride,
        at(weights),
        at(room),
        at(found),
    )
    return found


def claims(taus, weights, total, rest, ps, qs) -> tuple[np.ndarray, int, int]:
    """See `Entrywise.claims`."""
    if taus.dtype != np.float64:
        return numpy_entrywise.claims(taus, weights, total, rest, ps, qs)
    taus, stride = rows(taus)
    weights, total, rest = (flat(one, np.float64) for one in (weights, total, rest))
    ps, qs = flat(ps, np.float64), flat(qs, np.float64)
    votes, changed = np.empty(total.size, np.int32), (integer * 2)()
    function("claims", 4)(
        integer(total.size),
        integer(len(taus)),
        at(taus),
        stride,
        at(weights),
        at(total),
        at(rest),
        at(ps),
        at(qs),
        at(votes),
        changed,
    )
    return votes, changed[0], changed[1]


def contend(
    taus, weight: float, sums, low: float, high: float, number_: int, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """See `Entrywise.contend`."""
    taus, sums = flat(taus, np.float64), flat(sums, np.float64)
    places, found = np.empty(taus.size, np.uint32), [np.empty(taus.size) for _ in range(3)]
    many = function("contend", 4, integer)(
        integer(taus.size),
        at(taus),
        number(weight),
        at(sums),
        number(low),
        number(high),
        number(number_),
        number(bound),
        at(places),
        *(at(row) for row in found),
    )
    terms, exponents, balances = (one[:many] for one in found)
    return places[:many], terms, exponents, balances


def add_units(values, units) -> None:
    """See `Entrywise.add_units`."""
    values = flat(values, np.float64)
    function("add_units", 4)(integer(values.size), at(values), at(units))


def exact_at(n: int, places, values) -> np.ndarray:
    """See `Entrywise.exact_at`."""
    total, rest, inexact = np.zeros(n), np.zeros(n), np.zeros(n, np.uint8)
    add, wrong = function("add_at", 4, ctypes.c_int), False
    for at_, mine in zip(places, values, strict=True):
        where, mine = flat(at_, np.uint32), flat(mine, np.float64)
        given = integer(where.size), at(where), at(mine), at(total), at(rest), at(inexact)
        wrong |= bool(add(*given))
    if wrong:
        return numpy_entrywise.exact_at(n, places, values)
    return total + rest


def unify(taus, weights, row: int = -1) -> np.ndarray:
    """See `Entrywise.unify`."""
    if taus.dtype != np.float64:
        return numpy_entrywise.unify(taus, weights, row)
    (taus, stride), weights = rows(taus), flat(weights, np.float64)
    found, inexact = np.empty(taus.shape[1]), np.empty(taus.shape[1], np.uint8)
    wrong = function("unify", 4, ctypes.c_int)(
        integer(found.size),
        integer(len(taus)),
        at(taus),
        stride,
        at(weights),
        integer(row),
        at(found),
        at(inexact),
    )
    if wrong:
        where = np.flatnonzero(inexact)
        found[where] = numpy_entrywise.unify(taus[:, where], weights, row)
    return found
