"""TALL-masks: what is left of each task when one vector and a bit a weight stand for its model.

For the first 8, 14 and 20 tasks: the accuracy of every rebuilt model against the fine-tuned one,
the bits by the paper's accounting, and Consensus Merging with k of 0 to 3.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from experiments.paper.choosing import mean, summary
from experiments.paper.drawing import drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, percent

from breadcrumbs import checkpoint
from breadcrumbs.archives import accounting
from breadcrumbs.tune import scales

SIZES = (8, 14, 20)
ALPHAS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.3)


def measure(family: Family) -> dict[str, Any]:
    """Return retained accuracy, bits and consensus, by number of tasks."""
    result: dict[str, Any] = {}
    for size in [size for size in SIZES if size <= len(family.tasks)]:
        tasks = family.tasks[:size]
        trained, frozen = weights(family, tasks)
        bits = (of(size, trained, frozen) for of in (accounting.of_models, accounting.of_masks))
        result[str(size)] = {
            "trained": trained,
            "frozen": frozen,
            "gigabits": [number / 1e9 for number in bits],
            "rebuilt": rebuilt(family, tasks),
            "consensus": consensus(family, tasks),
        }
        say(f"{size}: {result[str(size)]}")
    return result


def weights(family: Family, tasks: list[str]) -> tuple[int, int]:
    """Return the number of weights that a model changed (tensor by tensor), and of the others."""
    with ExitStack() as stack:
        paths = [family.suite.base, *map(family.model, tasks)]
        base, *models = (stack.enter_context(checkpoint.open(path)) for path in paths)
        return accounting.weights(base, models)


def rebuilt(family: Family, tasks: list[str]) -> dict[str, Any]:
    """Return of each task the scale chosen on validation rows, and its model's test score."""
    chosen = scales.search(family.recipe("tall_mask", tasks), family.pool)
    best = [family.recipe("tall_mask", tasks, task=task, scale=chosen[task]) for task in tasks]
    fixed = [family.recipe("tall_mask", tasks, task=task, scale=0.4) for task in tasks]
    each = [[task] for task in tasks]
    return {
        "scales": {task: float(scale) for task, scale in chosen.items()},
        "normalised": round(mean(_own(family.scores(best, "test", each))), 5),
        "normalised at 0.4": round(mean(_own(family.scores(fixed, "test", each))), 5),
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


def table(found: dict[str, Any]) -> str:
    """Return TALL-masks: what is kept and at how many bits; and Consensus Merging by k."""
    every = by_seed(found)
    rows = []
    for size in [str(size) for size in SIZES if str(size) in every[0]]:
        mine = [one[size] for one in every]
        full, packed = mine[0]["gigabits"]
        merged = [[one["consensus"][str(k)]["normalised"] for one in mine] for k in range(4)]
        rows.append(
            [
                size,
                f"{full:.2f} → {packed:.2f}",
                percent([one["rebuilt"]["normalised"] for one in mine]),
                percent([one["rebuilt"]["normalised at 0.4"] for one in mine]),
                *map(percent, merged),
            ]
        )
    head = ["tasks", "gigabits", "rebuilt, %", "at lambda 0.4", "k = 0", "k = 1", "k = 2", "k = 3"]
    return markdown(head, rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw retained accuracy, and consensus by k, against the number of tasks."""
    seeds = by_seed(found)
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
