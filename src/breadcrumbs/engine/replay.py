"""The steps of a merge before their factor, which another factor makes another merge of.

``merged = base + factor * step``: the step is a sum of task vectors, in two float64 where one is
too narrow for it, or what an aggregate found. Which parameters are in the factor alone follows from
how the aggregate is declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from breadcrumbs.engine.merged import Step
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.recipe import Override, to_mapping
from breadcrumbs.plan.units import Piece

_Part = tuple[int, tuple[np.ndarray, np.ndarray] | None]


def factors(plan: Plan) -> set[str]:
    """Return the parameters of a plan's method that the steps do not depend on."""
    scaled, aggregate = plan.lowered.elementwise or plan.lowered.whole, plan.lowered.linear
    if scaled:
        return {"alpha"} & set(scaled.parameters)
    if aggregate is None:
        return set()
    for tensor in plan.merged:
        both = zip(tensor.own, tensor.models, strict=True)
        if aggregate.more(tensor.values, [own.weight for own, model in both if model is not None]):
            return set()  # some of the base is added besides
    return set(aggregate.parameters)


def key(plan: Plan) -> str:
    """Return a text that plans have in common whose steps are the same."""
    free, recipe = factors(plan), plan.recipe

    def bound(parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in parameters.items() if name not in free}

    overrides = (replace(o, parameters=bound(o.parameters)) for o in recipe.overrides)
    recipe = replace(
        recipe,
        parameters=bound(recipe.parameters),
        overrides=tuple(o for o in overrides if o != Override(o.tensors, {}, o.model)),
    )
    return json.dumps(to_mapping(recipe))


class Steps:
    """The steps of all tensors that are merged. norms: by tensor, what task vectors were rescaled
    by."""

    def __init__(self, plan: Plan):
        self.norms: dict[str, np.ndarray] = {}
        self._totals = {tensor.name: np.empty(tensor.base.size) for tensor in plan.merged}
        #: By tensor and start: how many entries, and which of them leave what out of the total.
        self._parts: dict[str, dict[int, _Part]] = {name: {} for name in self._totals}

    def keep(self, tensor: TensorPlan, step: Step) -> None:
        """Keep a part of a tensor's step, from any thread. Its rest is 0 nearly everywhere."""
        start, total, rest = step.start, step.total, step.rest
        self._totals[tensor.name][start : start + total.size] = total
        where = np.flatnonzero(rest)
        left = (where.astype(np.int32), rest[where]) if rest.size else None
        self._parts[tensor.name][start] = total.size, left

    def parts(self, tensor: TensorPlan, piece: Piece) -> Iterator[Step]:
        """Yield the parts of a piece of a tensor."""
        totals = self._totals[tensor.name]
        for start, (n, left) in self._parts[tensor.name].items():
            if piece.start <= start < piece.stop:
                rest = np.zeros(n if left else 0)
                if left:
                    rest[left[0]] = left[1]
                yield Step(start, totals[start : start + n], rest)
