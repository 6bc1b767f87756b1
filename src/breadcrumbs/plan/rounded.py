"""Whether rounding to the dtype of the output has taken all that a merge adds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.plan.plan import Plan

#: Entries that are compared at once: few, since they nearly always differ at once.
_STEP = 1 << 12


def is_base(plan: Plan, read: Callable[[int, int, int], np.ndarray]) -> bool:
    """Return whether all merged tensors are those that they were added to, in the output's dtype.

    read: entries of the output, from the number of a tensor, a start and how many. It ends at the
    first entry that differs, so that it reads next to nothing of a merge that has added something.
    """
    return not any(
        _differs(plan, index, read)
        for index, it in enumerate(plan.tensors)
        if not it.copied or (plan.coordinates and it.name in plan.coordinates.bases)
    )


def _differs(plan: Plan, index: int, read: Callable[[int, int, int], np.ndarray]) -> bool:
    it = plan.tensors[index]
    under = it.base if plan.coordinates is not None else it.target
    for start in range(0, it.base.size, _STEP):
        before = np.empty(min(_STEP, it.base.size - start), DTYPES[under.dtype])
        under.read_into(start, before)
        with np.errstate(over="ignore", invalid="ignore"):
            old = before.astype(DTYPES[it.dtype]).astype(np.float64)
        new = read(index, start, before.size).astype(np.float64)
        if not np.array_equal(old, new, equal_nan=True):
            return True
    return False
