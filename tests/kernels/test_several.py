"""Several tensors that lie one after the other are merged as each would be by itself."""

from __future__ import annotations

import numpy as np
import pytest
from raw_rows import OTHERS, raw_weights

from breadcrumbs.kernels import bounds, constants
from breadcrumbs.kernels import numpy as plain

SIZES = np.array([64, 1, 4500, 64, 0, 192], np.int64)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("weights", [(), (0.5, 2.0, -1.0), "mean", "sum", "max"])
@pytest.mark.parametrize("how", ["band", "rows", "nothing", "drawn", "all"])
@pytest.mark.parametrize("kernels", [pytest.param(plain, id="plain"), *OTHERS])
def test_each_is_as_by_itself(kernels, how, weights, dtype):
    rng = np.random.default_rng(len(how))
    n, count, alpha = int(SIZES.sum()), len(SIZES), 0.7
    base, models = (
        raw_weights("usual", (n,), dtype, rng),
        raw_weights("usual", (3, n), dtype, rng),
    )
    kinds = {"mean": constants.MEAN, "sum": constants.SUM, "max": constants.LARGEST}
    kind = kinds.get(weights, constants.TOTAL)  # of an election, which has no weights here
    given = np.array(weights if kind == constants.TOTAL else (), np.float64)
    keys, limits = np.empty((0, 3), np.uint64), np.empty(0, np.uint32)
    ranks = np.empty((0, 3), np.int64)
    if how in ("drawn", "all"):
        keys = rng.integers(0, 1 << 63, (count, 3), np.uint64)
        limits = np.array([1 << 31, 1 << 30, 1 << 31], np.uint32)[: 3 if how == "drawn" else 0]
    else:
        units = [64 if how == "rows" and size % 64 == 0 else max(1, size) for size in SIZES]
        band = {"nothing": lambda u: (u // 2, u // 2)}.get(how, lambda u: (u // 3, u - u // 5))
        ranks = np.array([(unit, *band(unit)) for unit in units], np.int64)
    extents = np.tile(np.array(bounds.NO_EXTENT, np.uint32), (count, 1))
    out, kept, squares = np.zeros(n, dtype), np.zeros((count, 3), np.int64), np.empty(count)
    to = extents, out, kept, squares
    inexact = kernels.merge_several(
        base, models, SIZES, ranks, keys, limits, kind, given, alpha, *to
    )
    at = 0
    for j, size in enumerate(SIZES.tolist()):
        part = slice(at, at + size)
        at += size
        mine = base[part], models[:, part]
        extent, alone = np.array(bounds.NO_EXTENT, np.uint32), np.zeros(size, dtype)
        number = np.zeros(3, np.int64)
        how, nowhere = (kind, 1, alpha, extent, alone, np.empty(0)), np.empty(0, np.uint32)
        if len(ranks):
            unit, *pair = ranks[j].tolist()
            cuts = kernels.cut_units(*mine, unit, *pair)
        if kind != constants.TOTAL and len(ranks):
            found = kernels.elect_band(*mine, unit, cuts, *how, nowhere, alone[:0])[0], False
        elif kind != constants.TOTAL:
            found = kernels.elect_drawn(*mine, keys[j], 0, limits, *how, number), False
        elif len(ranks):
            found = kernels.merge_band(*mine, unit, cuts, given, alpha, extent, alone)
        else:
            drawn = keys[j], 0, limits
            found = kernels.merge_drawn(*mine, *drawn, given, alpha, extent, alone, number)
        assert (squares[j], bool(inexact[j])) == found
        assert np.array_equal(out[part], alone)
        assert np.array_equal(extents[j], extent)
        assert np.array_equal(kept[j], number)
