"""Open models, merged by weights into a Torch module, and what a gradient says of the weights."""

from __future__ import annotations

import glob
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.engine import runner
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import calibration, estimate
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.recipe import Override, Recipe
from breadcrumbs.tune.learn.weights.streams import (
    Module,
    Putting,
    Scan,
    Scanning,
    entries,
    products,
)

if TYPE_CHECKING:
    import torch

    from breadcrumbs.modules.slots import Slots

#: Cuts of ranks that are kept from one step to the next: all.
ALL = 1 << 62
#: A model of weight 0 is out of elections, so that weights stop before it.
LEAST = 1e-6
#: Digits of a weight that is learned, in the recipe.
DIGITS = 6


class Family:
    """The models of a plan, by weights (models, tensors), in the module that the slots are of.

    names: of the tensors that have weights: what some model changes and the module has, once where
    it is tied. start: the weights that the recipe begins with, its alpha times those it gives.
    RecipeError where the step is no sum of parts that do not depend on the weights.
    """

    def __init__(self, plan: Plan, slots: Slots, threads: int | None = None):
        self.threads = estimate.threads(plan, threads, None)
        plan = calibration.fixed(plan, threads=self.threads)
        check(plan)
        self.slots = slots
        seen: dict[int, str] = {}
        #: By the name of a tensor, the one whose weights it has: in the module they are one.
        self._of: dict[str, str] = {}
        for tensor in plan.merged:
            slot = slots.names.get(tensor.name)
            key = id(tensor) if slot is None else id(slot)
            self._of[tensor.name] = seen.setdefault(key, tensor.name)
        self.recipe = plan.recipe
        self._plan = replace(plan, tensors=tuple(map(_of_one, plan.tensors)))
        self._facts = runner.known(self._plan, threads=self.threads)
        self._fresh = True
        #: The names of the tensors that some model changes, in the module or not.
        self._changed = self._look()
        mine = self._changed & slots.names.keys()
        self.names = [name for name in dict.fromkeys(self._of.values()) if name in mine]
        #: By the name of a tensor, what has its values in the module: several where files tie it.
        self._places = {name: [slots.names[name].tensor] for name in self.names}
        for tensor in plan.tensors:
            slot = slots.names.get(tensor.name)
            mine = self._places.get(tensor.tied)
            if mine is not None and slot is not None and all(slot.tensor is not p for p in mine):
                mine.append(slot.tensor)
        if not self.names:
            raise RecipeError("recipe: the models change no tensor that the module has.")
        self._columns = {name: i for i, name in enumerate(self.names)}
        tensors = {tensor.name: tensor for tensor in self._plan.merged}
        self.start = np.array([_given(tensors[name]) for name in self.names]).T

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return [model.name for model in self.recipe.models]

    def put(self, weights: np.ndarray) -> None:
        """Merge by weights (models, tensors) into the module, in the dtype of the output."""
        plan = self._weighted(weights)
        output = Module(plan, self.slots)
        runner.run(plan, Putting(output, self._fresh), **self._settings)
        self._fresh = False

    def pull(self, weights: np.ndarray) -> np.ndarray:
        """Return of the module's gradient what it is of the weights (models, tensors), float64.

        0 for a tensor without a gradient, and for a model that lacks it.
        """
        return self.scanned(weights, products, len(self.recipe.models)).T

    def scanned(self, weights: np.ndarray, scan: Scan, width: int) -> np.ndarray:
        """Return (tensors, width): what was found of each, summed in the order of its entries."""
        plan = self._weighted(weights)
        looking = Scanning(plan, self._gradients(plan), scan, width)
        runner.run(plan, looking, **self._settings)
        return np.stack([looking.of(name) for name in self.names])

    def parameters(self) -> list[torch.Tensor]:
        """Return the module's parameters that weights move; all others need no gradient."""
        return [place for places in self._places.values() for place in places]

    def more(self) -> list[torch.Tensor]:
        """Return what is learned besides weights; `pull` gives it gradients."""
        return []

    def learned(self, weights: np.ndarray, per: str) -> Recipe:
        """Return the recipe with weights (models, tensors). per: ``model`` or ``tensor``."""
        recipe, columns = self.recipe, self._columns
        parameters = {**recipe.parameters, "alpha": 1.0}
        told = [
            replace(one, parameters=_without_alpha(one.parameters), weight=None)
            for one in recipe.overrides
        ]
        overrides = tuple(one for one in told if one.parameters)
        if per == "model":
            found = weights[:, 0].tolist()
        else:
            found = [1.0] * len(recipe.models)
            for tensor in self._plan.tensors:
                if (tensor.tied or tensor.name) not in self._changed:
                    continue  # of what is tied all names have the same, or it is not tied
                column = columns.get(self._of.get(tensor.tied or tensor.name, ""))
                mine = _given(tensor) if column is None else weights[:, column].tolist()
                overrides += tuple(
                    Override(glob.escape(tensor.name), {}, name, weight)
                    for name, weight in zip(self.models, mine, strict=True)
                )
        models = tuple(
            replace(model, weight=weight)
            for model, weight in zip(recipe.models, found, strict=True)
        )
        return replace(recipe, models=models, parameters=parameters, overrides=overrides)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"threads": self.threads, "facts": self._facts, "keeps": ALL}

    def _weighted(self, weights: np.ndarray) -> Plan:
        tensors = list(self._plan.tensors)
        for index, tensor in enumerate(tensors):
            column = self._columns.get(self._of.get(tensor.name, ""))
            if column is not None:
                mine = zip(tensor.own, weights[:, column].tolist(), strict=True)
                own = tuple(replace(one, weight=weight) for one, weight in mine)
                tensors[index] = replace(tensor, own=own)
        return replace(self._plan, tensors=tuple(tensors))

    def _look(self) -> set[str]:
        """Return the names of the tensors that some model changes."""
        looking = Scanning(self._plan, None, entries, 1)
        runner.run(self._plan, looking, **self._settings)
        return {tensor.name for tensor in self._plan.merged if looking.of(tensor.name).any()}

    def _gradients(self, plan: Plan) -> list[torch.Tensor | None]:
        """Return by number of tensor the gradient, flat, of those that have one."""
        found: list[torch.Tensor | None] = []
        for tensor in plan.tensors:
            places = self._places.get(tensor.name, []) if not tensor.copied else []
            flat = [place.grad.detach().reshape(-1) for place in places if place.grad is not None]
            found.append(sum(flat[1:], flat[0]) if flat else None)
        return found


def check(plan: Plan) -> None:
    """Raise RecipeError unless each step is alpha times the sum of weights times parts."""
    recipe, lowered = plan.recipe, plan.lowered
    if recipe.space != "full":
        raise RecipeError("recipe: space: weights are learned of whole models. Leave it out.")
    aggregate = lowered.linear or lowered.elementwise
    fits = aggregate is not None and "alpha" in aggregate.parameters and not lowered.finish
    if fits and lowered.linear:
        weights = [0.25 + 0.5 * t for t in range(len(recipe.models))]
        for tensor in plan.merged:
            values, linear = {**tensor.values, "alpha": 1.0}, lowered.linear
            fits = fits and linear.factor(values, weights) == 1 and not linear.more(values, weights)
    if lowered.elementwise and lowered.elementwise.parts is None:
        fits = False
    if not fits or lowered.shaped:
        raise RecipeError(
            f"method {plan.method.name}: its step is not a sum of weights times what the models"
            " add, so weights have no such gradient. Take task_arithmetic, breadcrumbs, magnitude,"
            " dare, or survivors (AdaMerging++)."
        )
    if any(own.weight <= 0 for tensor in plan.merged for own in tensor.own):
        raise RecipeError(
            "recipe: a weight is not above 0, where the learning begins. Leave the model out, or"
            " give a small one."
        )


def by_model(family: Family) -> np.ndarray:
    """Return the first weights of the models (models,); RecipeError where tensors have others."""
    if (family.start != family.start[:, :1]).any():
        raise RecipeError(
            "recipe: alpha or weights differ between tensors. Learn them --per tensor."
        )
    return family.start[:, 0]


def rounded(weights: np.ndarray) -> np.ndarray:
    """Return weights as the recipe has them."""
    return np.array([float(f"{w:.{DIGITS}g}") for w in weights.ravel()]).reshape(weights.shape)


def _given(tensor: TensorPlan) -> list[float]:
    """Return what parts of a tensor are multiplied by in the recipe: alpha times weights."""
    return [float(tensor.values["alpha"]) * own.weight for own in tensor.own]


def _of_one(tensor: TensorPlan) -> TensorPlan:
    """Return what happens to a tensor with its alpha in the weights instead."""
    if tensor.copied:
        return tensor
    own = tuple(
        replace(one, weight=weight) for one, weight in zip(tensor.own, _given(tensor), strict=True)
    )
    return replace(tensor, values={**tensor.values, "alpha": 1.0}, own=own)


def _without_alpha(parameters: Any) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key != "alpha"}
