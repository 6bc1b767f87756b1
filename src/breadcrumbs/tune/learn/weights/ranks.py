"""A family whose matrices are singular triplets, of which it is learned which are kept (AdaRank).

Lee et al., "AdaRank: Adaptive Rank Pruning for Enhanced Model Merging", arXiv:2503.22178:

    theta = base + sum_t weight_t sum_i [sigmoid(m_ti / 10) > 0.5] s_ti u_ti v_ti^T

and tensors that are no matrices as ever. The gradient goes through the mask as if it were the
sigmoid p (straight-through): that of m is the one of the mask, weight s u^T g v, times
p (1 - p) / 10. All triplets are kept at first, with m = 0.1. Theirs: 10,000 steps of 16 test rows a
task, Adam with rate 1e-3, entropy, and the step that scores best on the test rows is reported; they
can begin at the mean of the models with a sixth of the triplets, which is not here.

Triplets are found once and lie in files; of them one tensor of one model is in memory at a time.
"""

from __future__ import annotations

import glob
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint.tensors import DTYPES
from breadcrumbs.errors import RecipeError
from breadcrumbs.methods.aggregates import matrices
from breadcrumbs.methods.aggregates.singular import triplets
from breadcrumbs.methods.parameters import ALL, Ranges
from breadcrumbs.modules.slots import as_torch
from breadcrumbs.plan import Plan, TensorPlan
from breadcrumbs.plan.recipe import Recipe
from breadcrumbs.tune.learn.weights.family import Family

if TYPE_CHECKING:
    import torch

    from breadcrumbs.modules.slots import Slots

SHARP, START = 10.0, 0.1
#: What merges the triplets that a recipe names.
METHOD = "triplets+sum"


class Ranked(Family):
    """A family of task vectors. folder: where their triplets lie, as large as all models."""

    def __init__(self, plan: Plan, slots: Slots, folder: Path, threads: int | None = None):
        import torch

        if not plan.lowered.keeps_all or plan.lowered.linear is None:
            raise RecipeError(
                f"method {plan.method.name}: triplets are those of whole task vectors. Take"
                " task_arithmetic."
            )
        super().__init__(plan, slots, threads)
        self.folder = folder
        merged = {tensor.name: tensor for tensor in self._plan.merged}
        #: Of each matrix the logits of the triplets of each model, falling.
        self.logits: dict[str, list[torch.Tensor]] = {
            name: [
                torch.full((self._split(merged[name], t),), START, dtype=torch.float64)
                for t in range(len(self.models))
            ]
            for name in self.names
            if _is_matrix(merged[name])
        }
        self._tensors = {name: merged[name] for name in self.logits}

    def more(self) -> list[torch.Tensor]:
        """Return the logits of all masks."""
        return [logits for mine in self.logits.values() for logits in mine]

    def kept(self, name: str, t: int) -> np.ndarray:
        """Return which triplets of a matrix are kept of model t, (rank,) bool."""
        return self.logits[name][t].detach().numpy() > 0

    def put(self, weights: np.ndarray) -> None:
        """Merge by weights (models, tensors) into the module: what a recipe makes, but for rounding
        of products in float32."""
        super().put(weights)
        for name, tensor in self._tensors.items():
            merged = tensor.base.read().astype(np.float64)
            for t, weight in enumerate(weights[:, self._columns[name]].tolist()):
                left, right = self._triplets(name, t)
                mine = self.kept(name, t)
                merged += (left[:, mine] * np.float32(weight)) @ right[mine]
            narrow = as_torch(merged.astype(DTYPES[tensor.dtype]))
            for place in self._places[name]:
                place.detach().copy_(narrow)

    def pull(self, weights: np.ndarray) -> np.ndarray:
        """Return what the gradient is of the weights (models, tensors); logits get theirs."""
        import torch

        found = super().pull(weights)
        for name, logits in self.logits.items():
            column, gradient = self._columns[name], self._gradient(name)
            for t, mine in enumerate(logits):
                left, right = self._triplets(name, t)
                each = np.einsum("mk,mk->k", left, gradient @ right.T).astype(np.float64)
                found[t, column] = each[self.kept(name, t)].sum()
                chance = (mine.detach() / SHARP).sigmoid()
                slope = chance * (1 - chance) / SHARP
                mine.grad = torch.from_numpy(weights[t, column] * each) * slope
        return found

    def learned(self, weights: np.ndarray, per: str) -> Recipe:
        """Return the recipe with weights, and the triplets that are kept."""
        made = super().learned(weights, "tensor")
        names = {tensor.name: tensor.tied or tensor.name for tensor in self._plan.tensors}
        told = {
            (glob.escape(name), model): Ranges.of(self.kept(of, t).tolist())
            for name, other in names.items()
            if (of := self._of.get(other, "")) in self.logits
            for t, model in enumerate(self.models)
        }
        overrides = []
        for one in made.overrides:
            keep = told.get((one.tensors, one.model), ALL)
            more = {} if keep == ALL else {"keep": keep}
            overrides.append(replace(one, parameters={**one.parameters, **more}))
        return replace(made, method=METHOD, overrides=tuple(overrides))

    def _gradient(self, name: str) -> np.ndarray:
        """Return the gradient of a matrix, float32."""
        total: Any = 0
        for place in self._places[name]:
            total = total + (0 if place.grad is None else place.grad)
        shape = self._tensors[name].base.shape
        if isinstance(total, int):
            return np.zeros(shape, np.float32)
        return total.float().cpu().numpy().reshape(shape)

    def _split(self, tensor: TensorPlan, t: int) -> int:
        """Write the triplets of what model t changes, in float32; return how many there are."""
        model, base = tensor.models[t], tensor.base.read().astype(np.float64)
        tau = np.zeros(base.shape) if model is None else model.read().astype(np.float64) - base
        u, s, v = triplets(tau)
        left, right = self._paths(tensor.name, t)
        np.save(left, (u * s).astype(np.float32))
        np.save(right, v.astype(np.float32))
        return len(s)

    def _triplets(self, name: str, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Return left (m, rank) with the singular values in it, and right (rank, n)."""
        left, right = self._paths(name, t)
        return np.load(left), np.load(right)

    def _paths(self, name: str, t: int) -> tuple[Path, Path]:
        number = self._columns[name]
        return self.folder / f"{number}-{t}-left.npy", self.folder / f"{number}-{t}-right.npy"


def _is_matrix(tensor: TensorPlan) -> bool:
    """Return whether the transform sees the tensor as one matrix."""
    shape = tensor.base.shape
    return len(shape) == 2 and matrices.each(tensor.name, shape, tensor.values) == shape
