"""The demo: a small family of real models, merged and measured.

`run` merges the family by Task Arithmetic and by Model Breadcrumbs, chooses alpha on validation
images, and measures each choice once on test images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.demo.model import Split, accuracy, load_family
from breadcrumbs.machine import available_cores
from breadcrumbs.merging import api

#: alpha is chosen among these, by mean normalised accuracy on validation images.
ALPHAS = (0.2, 0.3, 0.5, 0.7, 1.0)
METHODS = ("task_arithmetic", "breadcrumbs")


@dataclass
class Row:
    """One line of the table. accuracy: by task, on test images. mean and normalised: over tasks.

    normalised is the mean of the ratios to the fine-tuned models' accuracies. validation: the
    normalised accuracy of every alpha that was tried, on validation images.
    """

    name: str
    accuracy: dict[str, float]
    mean: float
    normalised: float
    alpha: float | None = None
    validation: dict[float, float] = field(default_factory=dict)


@dataclass
class Result:
    """The rows of the table, and what was learnt from them in a sentence or two."""

    tasks: list[str]
    rows: list[Row]
    lesson: str
    seconds: float

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**self.__dict__, "rows": [row.__dict__ for row in self.rows]}


def run(keep: str | None = None, step: Callable[[str], None] = lambda what: None) -> Result:
    """Merge the family and return the table. keep: a folder for the merged models.

    step: called with what is being done.
    """
    began = time.perf_counter()
    family = load_family()
    tasks = list(family.tasks)
    models = [str(family.finetuned[task]) for task in tasks]

    def scores(weights: Any, split: Split) -> dict[str, float]:
        with ThreadPoolExecutor(available_cores()) as pool:
            found = pool.map(lambda task: accuracy(weights, task, split), tasks)
            return dict(zip(tasks, found, strict=True))

    step("measuring the base and the fine-tuned models")
    own: dict[Split, dict[str, float]] = {"validation": {}, "test": {}}
    for task in tasks:
        weights = dict(checkpoint.open(family.finetuned[task]))
        for split in own:
            own[split][task] = accuracy(weights, task, split)

    def row(name: str, got: dict[str, float], **more: Any) -> Row:
        return Row(name, got, _mean(got.values()), _normalised(got, own["test"]), **more)

    rows = [
        row("base", scores(dict(checkpoint.open(family.base)), "test")),
        row("fine-tuned, one each", own["test"]),
    ]
    for method in METHODS:
        tried = {}
        for alpha in ALPHAS:
            step(f"{method} with alpha {alpha}")
            merged = api.merge(str(family.base), models, method=method, alpha=alpha)
            tried[alpha] = _normalised(scores(merged, "validation"), own["validation"])
        best = max(tried, key=lambda alpha: tried[alpha])
        merged = api.merge(str(family.base), models, method=method, alpha=best)
        rows.append(
            row(f"{method}\nalpha {best}", scores(merged, "test"), alpha=best, validation=tried)
        )
        if keep is not None:
            api.merge(
                str(family.base), models, method=method, alpha=best, output=Path(keep) / method
            )
    return Result(tasks, rows, _lesson(rows, family.tasks), time.perf_counter() - began)


def _mean(values: Any) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def _normalised(got: dict[str, float], own: dict[str, float]) -> float:
    return _mean(got[task] / own[task] for task in own)


def _lesson(rows: list[Row], tasks: Any) -> str:
    """Say what the numbers show, and no more."""
    base, _, arithmetic, crumbs = rows
    items = sum(len(task.test.labels) for task in tasks.values())
    error = math.sqrt(
        sum(p * (1 - p) / len(tasks[t].test.labels) for t, p in crumbs.accuracy.items())
    ) / len(tasks)
    gap = crumbs.mean - arithmetic.mean
    order = "above" if gap > 0 else "below"
    clear = "more than" if abs(gap) > 2 * error else "within"
    spread = {row.name: max(row.validation.values()) - min(row.validation.values())
              for row in (arithmetic, crumbs)}  # fmt: skip
    steadier = min(spread, key=lambda name: spread[name]).partition("\n")[0]
    return (
        f"One merged model does {crumbs.mean - base.mean:+.1%} better than the base over"
        f" {len(tasks)} tasks ({items} test images). Model Breadcrumbs is {abs(gap):.1%} {order}"
        f" Task Arithmetic, {clear} two standard errors (one is {error:.1%})."
        f" Over the alphas tried, {steadier} changes least: validation"
        f" {min(crumbs.validation.values()):.1%} to {max(crumbs.validation.values()):.1%} for"
        f" breadcrumbs, {min(arithmetic.validation.values()):.1%} to"
        f" {max(arithmetic.validation.values()):.1%} for task_arithmetic."
    )
