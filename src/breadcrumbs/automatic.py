"""`alpha: auto`: how far to step, from the weights alone.

The step from the base becomes as long as the models' task vectors are on average::

    alpha = mean of |task vector| / |step at alpha 1|

norms over all tensors that alpha is for, the mean weighted like the models, and rounded to three
digits. Task vectors of tasks that have nothing to do with each other are nearly orthogonal, so
the sum of T of them is sqrt(T) times as long as one, and masks change its length again; what a
model bears of a step in unknown directions is about what it was fine-tuned by. docs/paper.md shows
what this loses against alphas chosen on validation rows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

from breadcrumbs import engine, methods
from breadcrumbs.errors import RecipeError
from breadcrumbs.parameters import AUTO
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.settings import Own
from breadcrumbs.sink import Nowhere, SegmentReport
from breadcrumbs.work import Segment

#: Digits that alpha is rounded to: norms differ in the last bits between machines.
DIGITS = 3


def fixed(
    plan: Plan,
    *,
    threads: int = 1,
    kernel: str = "auto",
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Plan:
    """Return the plan with a number for alpha where it says `auto`; the same plan if it does not.

    Reads every weight, each model twice. RecipeError where there is no step to measure.
    """
    asked = plan.automatic
    if not asked:
        return plan

    def length(plan: Plan) -> float:
        sink = Squares()
        engine.run(plan, sink, threads=threads, kernel=kernel, progress=progress)
        return sink.root

    step = length(replace(_with(plan, 1.0), tensors=tuple(_told(one, 1.0) for one in asked)))
    weights = [abs(model.weight) for model in plan.recipe.models]
    lengths = [
        length(_alone(plan, asked, number)) if weight else 0.0
        for number, weight in enumerate(weights)
    ]
    if step == 0 or not math.isfinite(step):
        raise RecipeError(
            "recipe: alpha: auto measures the step from the base, and here there is"
            f" {'none' if step == 0 else 'no finite one'}. Give a number."
        )
    mean = math.fsum(w * n for w, n in zip(weights, lengths, strict=True)) / math.fsum(weights)
    return _with(plan, float(f"{mean / step:.{DIGITS}g}"))


class Squares(Nowhere):
    """A sink that keeps nothing but how long the step is."""

    def __init__(self) -> None:
        self._found: list[float] = []
        self._lock = threading.Lock()

    def finish(self, segment: Segment, report: SegmentReport) -> None:
        with self._lock:
            self._found.append(report.squares)

    @property
    def root(self) -> float:
        """The norm of the step; the order in which segments came does not change it."""
        return math.sqrt(math.fsum(self._found))


def _told(tensor: TensorPlan, alpha: float) -> TensorPlan:
    """Return what happens to a tensor with a number in place of `auto`."""
    if tensor.values.get("alpha") != AUTO:
        return tensor
    own = tuple(
        Own(one.weight, {**one.values, "alpha": alpha} if "alpha" in one.values else one.values)
        for one in tensor.own
    )
    return replace(tensor, values={**tensor.values, "alpha": alpha}, own=own)


def _with(plan: Plan, alpha: float) -> Plan:
    recipe = replace(plan.recipe, parameters={**plan.recipe.parameters, "alpha": alpha})
    note = f"alpha: auto is {alpha:g}, which makes the step as long as task vectors are on average"
    return replace(
        plan,
        recipe=recipe,
        tensors=tuple(_told(tensor, alpha) for tensor in plan.tensors),
        warnings=(*plan.warnings, note),
    )


def _alone(plan: Plan, tensors: list[TensorPlan], number: int) -> Plan:
    """Return the plan whose step is one model's task vector, over some tensors."""
    values = {"alpha": 1.0}
    return replace(
        plan,
        recipe=replace(plan.recipe, models=(plan.recipe.models[number],)),
        method=methods.get("task_arithmetic"),
        models=(plan.models[number],),
        statistics=(),
        tensors=tuple(
            replace(
                tensor,
                values=values,
                own=(Own(1.0, values),),
                models=(tensor.models[number],),
                statistics=(),
            )
            for tensor in tensors
        ),
    )
