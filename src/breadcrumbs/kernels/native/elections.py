"""Elections of signs among what stays of task vectors."""

from __future__ import annotations

import ctypes

import numpy as np

from breadcrumbs.kernels.native.library import (
    at,
    flat,
    function,
    integer,
    maybe,
    number,
    rows,
    takes,
)
from breadcrumbs.kernels.numpy import elections as numpy_elections


class Poll(ctypes.Structure):
    """What C tells about undecided entries, and the room for them."""

    _fields_ = (("room", integer), ("votes", integer), ("undecided", integer), ("more", number))


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
    """See `Elections.elect_band`."""
    if not takes(base, extent, out, found, where, other):
        how = unit, cuts, kind, majority, alpha
        return numpy_elections.elect_band(base, models, *how, extent, out, found, where, other)
    base, (models, stride), cuts = flat(base), rows(models), flat(cuts, np.int64)
    ties, poll = np.empty((len(models), 2), np.int64), Poll(where.size)
    squares = function("elect_band", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        integer(unit),
        integer(len(cuts)),
        at(cuts),
        at(ties),
        integer(kind),
        integer(majority),
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        maybe(found),
        maybe(where),
        at(other),
        ctypes.byref(poll),
    )
    return squares, poll.votes, poll.undecided, poll.more


def elect_drawn(
    base, models, keys, start, limits, kind, majority, alpha: float, extent, out, found, kept
) -> float:
    """See `Elections.elect_drawn`."""
    if not takes(base, extent, out, found, kept):
        how = keys, start, limits, kind, majority, alpha
        return numpy_elections.elect_drawn(base, models, *how, extent, out, found, kept)
    base, (models, stride) = flat(base), rows(models)
    keys, limits = flat(keys, np.uint64), flat(limits, np.uint32)
    return function("elect_drawn", base.itemsize, number)(
        integer(base.size),
        integer(len(models)),
        at(base),
        at(models),
        stride,
        at(keys),
        integer(start),
        maybe(limits),
        integer(kind),
        integer(majority),
        number(alpha),
        at(extent),
        ctypes.c_int32(out.itemsize == 2),
        at(out),
        maybe(found),
        at(kept),
    )
