"""How long the step of a merge is against the task vectors, and what is said of a long one.

A fine-tuning is known to work one task vector away from the base. What lies much further away, in
a direction that no training has tried, may be worse than the base: a step longer than `LONG` times
the mean task vector is warned of. Of masks that are drawn most of a long step is noise, which
fine-tunings with large steps of SGD do not bear at all: they are warned of at once. Methods that
keep tasks apart (`Whole.apart`) may add T task vectors to one of sqrt(T) times their length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from breadcrumbs.methods import registry
from breadcrumbs.plan import lengths, lowering
from breadcrumbs.plan.plan import Plan

#: Times the mean task vector, above which a step is warned of.
LONG = 1.5
#: The same of masks that are drawn: `alpha: auto` goes to 1.5 with them.
NOISY = 1.45
#: Alpha is rounded where it is found.
ROUNDED = 1.005


@dataclass(frozen=True)
class Step:
    """ratio: of the length of the step to the mean task vector's. exact: or from a sample."""

    ratio: float
    exact: bool

    def __str__(self) -> str:
        return f"{'' if self.exact else 'about '}{self.ratio:.3g} times the mean task vector"


def of(plan: Plan, norm: float) -> Step | None:
    """Return how long a step of that norm is; None where no task vector has any length."""
    if not plan.models:
        return None
    mean, exact = plan.task_length, True
    if mean is None:
        found = lengths.of(plan)
        mean, exact = found.mean, found.exact
    return Step(norm / mean, exact) if mean else None


def warning(plan: Plan, step: Step | None) -> str:
    """Return what is said of a step that is too long, or nothing."""
    if step is None:
        return ""
    method, most = plan.method, LONG
    asked = lowering.of(registry.get(plan.recipe.method))
    drawn = asked.draw or asked.chances
    if drawn:
        most = NOISY
    if plan.lowered.whole and plan.lowered.whole.apart:
        most *= math.sqrt(len(plan.models))
    if step.ratio <= most * ROUNDED:
        return ""
    alpha = method.complete(plan.recipe.parameters).get("alpha")
    what = "weigh the models less" if "alpha" not in method.parameters else "give a smaller alpha"
    if isinstance(alpha, float | int) and alpha:
        what += f", such as {alpha / step.ratio:.2g}"
    noise = ", most of it noise of the drawn masks" if drawn else ""
    return f"the step is {step}{noise}, so the result may do worse than the base: {what}"
