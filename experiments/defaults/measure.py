"""What a family loses along a method's step, and what is known of the step from the weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from experiments.defaults.families import Family, Weights

import breadcrumbs
from breadcrumbs.merging import files, opening
from breadcrumbs.methods import registry
from breadcrumbs.plan.recipe import Model, Recipe

#: Alphas at which losses are measured.
ALPHAS = tuple(float(f"{0.06 * 1.6**i:.3g}") for i in range(11))
#: Methods that are followed along alpha, with what is set besides.
METHODS: dict[str, dict[str, Any]] = {
    "task_arithmetic": {},
    "breadcrumbs": {},
    "breadcrumbs .85/.993": {"beta": 0.85, "gamma": 0.993},
    "magnitude": {},
    "random_sparsed": {},
    "dare_linear": {},
    "dare_ties": {},
    "ties": {},
}
#: Those of families of fewer than eight fine-tunings.
FEW = ("task_arithmetic", "breadcrumbs", "magnitude", "dare_linear", "ties")
#: What a large model is measured with: methods, defaults, and alphas.
QUICK, AS_THEY_COME = ("breadcrumbs", "ties"), ("average", "task_arithmetic", "breadcrumbs", "ties")
SOME = ALPHAS[3:10:2]
#: What takes data, or is nothing without a task.
WITHOUT = [m.name for m in registry.METHODS.values() if m.statistics] + ["tall_mask"]


def measured(
    family: Family, sizes: Sequence[int] = (1, 2, 4, 8), quick: bool = False
) -> dict[str, Any]:
    """Return losses and sums by tensor: of the base, of each fine-tuning, of every method as it
    comes, along steps."""
    alphas = SOME if quick else ALPHAS
    tasks = list(family.tasks)
    found: dict[str, Any] = {
        "base": {task: family.loss(family.base, task) for task in tasks},
        "own": {task: family.loss(family.tasks[task], task) for task in tasks},
        "without": dict(family.without),
        "entries": {name: int(value.size) for name, value in family.base.items()},
        "alphas": alphas,
        "sets": [],
    }
    followed = QUICK if quick else FEW if len(tasks) < 8 else tuple(METHODS)
    names = AS_THEY_COME if quick else [name for name in registry.METHODS if name not in WITHOUT]
    for chosen in groups(tasks, sizes):
        models = [family.tasks[task] for task in chosen]
        one: dict[str, Any] = {"tasks": chosen, "defaults": {}, "methods": {}}
        for name in names:
            least, most = registry.get(name).aggregate.models
            if least <= len(models) <= (most or len(models)):
                one["defaults"][name] = default(family, chosen, name)
        for label in followed:
            wide = {"method": label.split()[0], "threads": 1, **METHODS[label]}
            merged = breadcrumbs.merge(family.base, models, alpha=1.0, **wide)
            one["methods"][label] = along(family, chosen, merged, alphas)
        found["sets"].append(one)
    return found


def default(family: Family, chosen: Sequence[str], method: str) -> dict[str, Any]:
    """Return the losses of the tasks under a method as it comes, how long its step is, and
    whether the merge says that this may be worse than the base."""
    recipe = Recipe("base", tuple(Model(task, name=task) for task in chosen), method, {})
    sources = [family.base, *(family.tasks[task] for task in chosen)]
    with opening.opened(recipe, sources) as plan:
        merged, report = files.to_arrays(plan, threads=1)
    return {
        "losses": [family.loss(merged, task) for task in chosen],
        "alpha": report.alpha,
        "step": report.step,
        "warned": any("worse than the base" in line for line in report.warnings),
    }


def groups(tasks: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    """Return the groups of tasks that are merged: two alone, and one of each size more."""
    found = [[tasks[0]], [tasks[len(tasks) // 2]]] if 1 in sizes else []
    found += [list(tasks[-n:]) for n in sizes if 1 < n < len(tasks)]
    return [*found, list(tasks)]


def along(
    family: Family, chosen: Sequence[str], merged: Mapping[str, Any], alphas: Sequence[float]
) -> dict[str, Any]:
    """Return sums by tensor, and the losses of the tasks at each alpha, up to three times the
    base's."""
    models = [family.tasks[task] for task in chosen]
    step = {n: np.asarray(merged[n], np.float64) - v for n, v in family.base.items()}
    sums = {name: _sums(family.base, models, name, value) for name, value in step.items()}
    base = sum(family.loss(family.base, task) for task in chosen)
    losses = []
    for alpha in alphas:
        weights: Weights = {n: v + alpha * step[n] for n, v in family.base.items()}
        losses.append([family.loss(weights, task) for task in chosen])
        if sum(losses[-1]) > 1.5 * base:
            break
    return {"sums": sums, "losses": losses}


def _sums(base: Weights, models: Sequence[Weights], name: str, step: np.ndarray) -> dict[str, Any]:
    taus = [model[name].astype(np.float64) - base[name] for model in models]
    total = np.sum(taus, axis=0)
    return {
        "product": float(np.vdot(step, total)),
        "square": float(np.vdot(total, total)),
        "step": float(np.vdot(step, step)),
        "taus": [float(np.vdot(tau, tau)) for tau in taus],
        "base": float(np.vdot(base[name], base[name])),
    }


def pairs(found: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """Return every set of models with every method."""
    return list(itertools.chain(*([(one, m) for m in one["methods"]] for one in found["sets"])))
