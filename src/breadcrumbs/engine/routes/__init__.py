"""The ways to merge a segment: each returns what it merged, or None where it does not apply.

sparse         sums of what task files keep, added to the base entry by entry
sums           sums of task vectors: fused kernels, else exactly
elections      elections by the fused kernels
ranked         sums and elections of what stays by its rank, by the fused kernel
combinations   combinations with known coefficients, by the fused kernels
turned         a large tensor of which one task vector is held at a time
wholes         a tensor at a time in memory
general        everything else, in float64
copies         what is not merged at all
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from breadcrumbs.engine.context import Context
from breadcrumbs.engine.merged import Merged, Step
from breadcrumbs.engine.routes import (
    combinations,
    copies,
    elections,
    general,
    ranked,
    sparse,
    sums,
    turned,
    wholes,
)
from breadcrumbs.engine.terms import Terms
from breadcrumbs.plan import TensorPlan
from breadcrumbs.plan.units import Segment

#: (terms, segment, the majority of the model so far or None) -> what was merged, or None.
Route = Callable[[Terms, Segment, int | None], Merged | None]

#: Tried in order, where the step is a sum of the task vectors as the kernels know it.
SUMS: Sequence[Route] = (
    lambda terms, segment, majority: sums.begun(terms, segment),
    lambda terms, segment, majority: sparse.merge(terms, segment),
    lambda terms, segment, majority: sums.fused(terms, segment),
    lambda terms, segment, majority: sums.exact(terms, segment),
)
#: And where it is something else.
OTHERS: Sequence[Route] = (
    lambda terms, segment, majority: turned.merge(terms, segment),
    lambda terms, segment, majority: wholes.merge(terms, segment),
    elections.fused,
    ranked.fused,
    lambda terms, segment, majority: combinations.fused(terms, segment),
    general.merge,
)


def merge(terms: Terms, segment: Segment, majority: int | None = None) -> Merged:
    """Return the merged segment. majority: of the model so far, where it has a say."""
    for route in SUMS if terms.linear else OTHERS:
        merged = route(terms, segment, majority)
        if merged is not None:
            return merged
    raise AssertionError("the last route takes everything")


def copied(context: Context, tensor: TensorPlan, segment: Segment) -> Merged:
    """Return a segment of a tensor that is not merged."""
    return copies.merge(context, tensor, segment)


def rescaled(terms: Terms, step: Step) -> np.ndarray:
    """Return the part of a tensor that a step makes which an earlier merge has kept."""
    return sums.rescaled(terms, step) if terms.linear else general.rescaled(terms, step)
