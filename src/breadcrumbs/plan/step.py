"""How long the step of a merge is against the task vectors, and what is said of a long one.

A fine-tuning is known to work one task vector away from the base. What lies much further away, in
a direction that no training has tried, may be worse than the base: a step longer than `LONG` times
the mean task vector is warned of. Of masks that are drawn most of a long step is noise, which
fine-tunings with large steps of SGD do not bear at all: they are warned of at once. Where
embeddings and heads have most of the task vectors, as in language models that were trained whole,
less is warned of, `OF_TABLES`: their length says little of how far the layers between are led.
Methods that keep tasks apart (`Whole.apart`) may add T task vectors to one of sqrt(T) times their
length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.methods import registry
from breadcrumbs.plan import lengths, lowering
from breadcrumbs.plan.plan import Plan

#: Times the mean task vector, above which a step is warned of.
LONG = 1.5
#: The same where embeddings and heads have most of the task vectors: 1.38 and 1.49 were seen below
#: the base, 1.31 well above.
OF_TABLES = 1.35
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
    apart = plan.lowered.whole is not None and plan.lowered.whole.apart
    if drawn:
        most = NOISY
    elif not apart and OF_TABLES < step.ratio / ROUNDED <= LONG and _is_of_tables(plan):
        most = OF_TABLES
    if apart:
        most *= math.sqrt(len(plan.models))
    if step.ratio <= most * ROUNDED:
        return ""
    alpha = method.complete(plan.recipe.parameters).get("alpha")
    what = "weigh the models less" if "alpha" not in method.parameters else "give a smaller alpha"
    if isinstance(alpha, float | int) and alpha:
        what += f", such as {alpha / step.ratio:.2g}"
    noise = ", most of it noise of the drawn masks" if drawn else ""
    return f"the step is {step}{noise}, so the result may do worse than the base: {what}"


def _is_of_tables(plan: Plan) -> bool:
    """Return whether embeddings and heads have most of the squares of the task vectors."""
    tables = tuple(tensor for tensor in plan.merged if is_table(tensor.name))
    if not tables:
        return False
    mine, whole = lengths.of(replace(plan, tensors=tables)), lengths.of(plan)
    return 2 * math.hypot(*mine.weighted) ** 2 > math.hypot(*whole.weighted) ** 2
