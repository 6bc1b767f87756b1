"""The lambda of each task's TALL mask, chosen on validation rows.

As in the paper: of 0.2 to 0.6, the one whose mask rebuilds the model that scores best on the task's
own validation rows; the lowest wins ties. Models are merged in memory by `tall_mask`, whose bits
those of an archive are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from breadcrumbs.plan.recipe import Recipe

if TYPE_CHECKING:
    from breadcrumbs.evaluate.scoring.pool import Pool
    from breadcrumbs.evaluate.scoring.settings import Settings
    from breadcrumbs.evaluate.suite import Suite

SCALES = ("0.2", "0.3", "0.4", "0.5", "0.6")

#: Called with the number of scores done, of all, and what has been scored.
Progress = Callable[[int, int, str], None]


def search(
    recipe: Recipe,
    pool: Pool,
    scales: Sequence[str] = SCALES,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, str]:
    """Return the scale of each task.

    recipe: the base and the models, each named as its task; parameters such as ``on``. pool: of a
    suite with those tasks.
    """
    points = [(model.name, scale) for model in recipe.models for scale in scales]
    jobs = [
        (
            replace(
                recipe,
                method="tall_mask",
                parameters={**recipe.parameters, "task": name, "scale": scale},
            ),
            [name],
        )
        for name, scale in points
    ]
    values: dict[tuple[str, str], float] = {}
    for number, rows in pool.score(jobs, "validation"):
        values.update((points[number], row.value) for row in rows)
        progress(len(values), len(points), "{} at {}".format(*points[number]))
    return best(values, scales)


def best(values: Mapping[tuple[str, str], float], scales: Sequence[str]) -> dict[str, str]:
    """Return the scale of the highest value of each task, the first of equal ones."""
    tasks = dict.fromkeys(task for task, _ in values)
    return {task: max(scales, key=lambda scale: values[task, scale]) for task in tasks}


def of_suite(
    recipe: Recipe,
    suite: Suite,
    settings: Settings,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, str]:
    """Return the scale of each task of a suite; SuiteError where a model is named as no task."""
    from breadcrumbs.evaluate.scoring.pool import Pool

    for model in recipe.models:
        suite.task(model.name)
    with Pool(suite.tuning(), settings) as pool:
        return search(recipe, pool, progress=progress)
