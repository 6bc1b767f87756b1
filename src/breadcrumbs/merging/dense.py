"""The merged tensors of a plan in float64, those of one job after the other: for what cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from breadcrumbs.engine import runner
from breadcrumbs.engine.consumers import Writing
from breadcrumbs.engine.outputs import Nowhere, TensorReport
from breadcrumbs.errors import RecipeError
from breadcrumbs.merging import calibration
from breadcrumbs.plan import Plan, TensorPlan, spaces, units
from breadcrumbs.plan.spaces import low_rank


def planned(plan: Plan, *, threads: int, kernel: str) -> Plan:
    """Return a plan that merges in float64 what some model changes, and copies the rest."""
    plan = calibration.fixed(plan, threads=threads, kernel=kernel)
    tensors = []
    for tensor in plan.tensors:
        if not tensor.copied:
            same = not spaces.changed(plan, tensor)
            tensor = replace(tensor, dtype="F64", copied="unchanged" if same else "")
        tensors.append(tensor)
    return replace(plan, tensors=tuple(tensors))


def merged(
    plan: Plan, rows: list[TensorReport], *, threads: int, kernel: str
) -> Iterator[tuple[TensorPlan, np.ndarray]]:
    """Yield each merged tensor of a plan in float64. rows: gets what was done to each tensor."""
    facts = runner.known(plan, threads=threads, kernel=kernel)
    rows += [TensorReport([0] * len(plan.models)) for _ in plan.tensors]
    for job in units.jobs(plan):
        mine = sorted({piece.index for piece in job.pieces})
        mine = [index for index in mine if not plan.tensors[index].copied]
        if not mine:
            continue
        output = _Gathered({i: np.empty(plan.tensors[i].base.size) for i in mine})
        done = runner.run(
            plan,
            Writing(output),
            threads=threads,
            kernel=kernel,
            facts=facts,
            only={job.unit_id},
        )
        for index in mine:
            rows[index] = done[index]
            yield plan.tensors[index], output.arrays[index]


def rank(plan: Plan, tensor: TensorPlan) -> int:
    """Return the sum of the ranks of what models change of a tensor; RecipeError if unknown."""
    result = 0
    for model, it in zip(tensor.models, plan.models, strict=True):
        if model is None or low_rank.same(model, tensor.base):
            continue
        found = low_rank.change(model, tensor.base)
        if found is None:
            raise RecipeError(
                f"{it.label}: the rank of what it changes of {tensor.name!r} is not known. Give"
                " --rank, of the adapter to write."
            )
        result += found.rank
    return result


class _Gathered(Nowhere):
    """Keeps the tensors of a job. arrays: flat, by the number of the tensor."""

    def __init__(self, arrays: dict[int, np.ndarray]):
        self.arrays = arrays

    def write(self, index: int, start: int, values: np.ndarray) -> None:
        self.arrays[index][start : start + values.size] = values

    def read(self, index: int, start: int, n: int) -> np.ndarray:
        return self.arrays[index][start : start + n].copy()
