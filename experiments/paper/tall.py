"""TALL-masks: what is left of each task when one vector and a bit a weight stand for its model.

For the first 8, 14 and 20 tasks: the accuracy of every rebuilt model against the fine-tuned one,
the bits by the paper's accounting, and Consensus Merging with k of 0 to 3.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from experiments.paper.choosing import mean, summary
from experiments.paper.drawing import drawn
from experiments.paper.family import Family, say

import breadcrumbs

SIZES = (8, 14, 20)
SCALES = (0.2, 0.3, 0.4, 0.5, 0.6)
ALPHAS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def measure(family: Family) -> dict[str, Any]:
    """Return retained accuracy, bits and consensus, by number of tasks."""
    result: dict[str, Any] = {}
    for size in [size for size in SIZES if size <= len(family.tasks)]:
        tasks = family.tasks[:size]
        trained, frozen = entries(family, tasks)
        result[str(size)] = {
            "trained": trained,
            "frozen": frozen,
            "gigabits": [gigabits(size, trained, frozen), gigabits_of_masks(size, trained, frozen)],
            "rebuilt": rebuilt(family, tasks),
            "consensus": consensus(family, tasks),
        }
        say(f"{size}: {result[str(size)]}")
    return result


def gigabits(tasks: int, trained: int, frozen: int) -> float:
    """Return the bits of all fine-tuned models in float32, frozen weights once, in 10^9."""
    return 32 * (tasks * trained + frozen) / 1e9


def gigabits_of_masks(tasks: int, trained: int, frozen: int) -> float:
    """Return the bits of the base, one vector, and a mask for each task, in 10^9."""
    return (32 * (2 * trained + frozen) + tasks * trained) / 1e9


def entries(family: Family, tasks: list[str]) -> tuple[int, int]:
    """Return the number of weights that a model changed (tensor by tensor), and of the others."""
    base = breadcrumbs.open(family.suite.base)
    changed = set()
    for task in tasks:
        with breadcrumbs.open(family.model(task)) as model:
            changed |= {
                name
                for name in base
                if name not in changed and not np.array_equal(base[name], model[name])
            }
    floats = {name: t.shape for name, t in base.tensors.items() if t.is_weight}
    trained = sum(math.prod(shape) for name, shape in floats.items() if name in changed)
    return trained, sum(map(math.prod, floats.values())) - trained


def rebuilt(family: Family, tasks: list[str]) -> dict[str, Any]:
    """Return of each task the scale chosen on validation rows, and its model's test score."""
    recipes = [
        family.recipe("tall_mask", tasks, task=task, scale=scale)
        for task in tasks
        for scale in SCALES
    ]
    mine = [[task] for task in tasks for _ in SCALES]
    found = family.scores(recipes, "validation", mine, "masks")
    chosen = {}
    for number, task in enumerate(tasks):  # the lowest wins ties, as in the paper
        tried = found[number * len(SCALES) : (number + 1) * len(SCALES)]
        chosen[task] = SCALES[max(range(len(SCALES)), key=lambda i: (tried[i].raw, -i))]
    best = [family.recipe("tall_mask", tasks, task=task, scale=chosen[task]) for task in tasks]
    fixed = [family.recipe("tall_mask", tasks, task=task, scale=0.4) for task in tasks]
    each = [[task] for task in tasks]
    return {
        "scales": chosen,
        "normalised": round(mean(_own(family.scores(best, "test", each))), 5),
        "normalised at .4": round(mean(_own(family.scores(fixed, "test", each))), 5),
    }


def _own(scores: list[Any]) -> dict[str, float]:
    return {task: value for one in scores for task, value in one.normalised.items()}


def consensus(family: Family, tasks: list[str]) -> dict[str, Any]:
    """Return the test score for each k, alpha chosen on validation rows."""
    result = {}
    for k in range(4):
        recipes = [family.recipe("consensus", tasks, k=k, alpha=alpha) for alpha in ALPHAS]
        found = family.scores(recipes, "validation", [tasks] * len(recipes), f"k {k}")
        best = max(found, key=lambda one: one.mean)
        (test,) = family.scores([best.recipe], "test", [tasks])
        alpha = best.recipe.parameters["alpha"]
        result[str(k)] = {"alpha": alpha, "normalised": round(test.mean, 5)}
    return result


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw retained accuracy, and consensus by k, against the number of tasks."""
    seeds = list(found["seeds"].values())
    sizes = [size for size in SIZES if str(size) in seeds[0]]
    with drawn(folder / "tall.svg", 8.0, ncols=2) as (_, axes):
        points = [summary([s[str(n)]["rebuilt"]["normalised"] for s in seeds]) for n in sizes]
        axes[0].errorbar(
            sizes, [100 * v for v, _ in points], [100 * e for _, e in points], marker="o"
        )
        axes[0].set_title("rebuilt from masks")
        for k in range(4):
            values = [
                summary([s[str(n)]["consensus"][str(k)]["normalised"] for s in seeds])[0]
                for n in sizes
            ]
            axes[1].plot(sizes, [100 * v for v in values], marker="o", label=f"k = {k}")
        axes[1].set_title("Consensus Merging")
        axes[1].legend()
        for axis in axes:
            axis.set_xlabel("tasks")
            axis.set_ylabel("normalised accuracy, %")
