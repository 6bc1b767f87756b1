"""Fig. 8: cosine similarity of task vectors, before and after masking."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.choosing import summary
from experiments.paper.drawing import drawn
from experiments.paper.family import Family
from experiments.paper.tables import by_seed, markdown

import breadcrumbs

MASKS: dict[str, dict[str, Any]] = {
    "paper": {"variant": "paper"},
    "authors": {"variant": "authors"},
}


def measure(family: Family) -> dict[str, Any]:
    """Return the cosines of all pairs: whole task vectors, and masked at 0.90/0.99."""
    models = [family.model(task) for task in family.tasks]
    whole = breadcrumbs.compare(family.suite.base, models, names=family.tasks)
    result = {"tasks": family.tasks, "whole": _cosines(whole)}
    for name, values in MASKS.items():
        masked = breadcrumbs.compare(
            family.suite.base,
            models,
            names=family.tasks,
            transform="breadcrumbs",
            beta=0.9,
            gamma=0.99,
            **values,
        )
        result[name] = _cosines(masked)
    return result


def _cosines(found: Any) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in found.cosine]


def pairs(matrix: list[list[float]]) -> list[float]:
    """Return the entries above the diagonal."""
    return [value for i, row in enumerate(matrix) for value in row[i + 1 :]]


def table(found: dict[str, Any]) -> str:
    """Return cosines before and after masking."""
    names = {"whole": "task vectors", "paper": "masked, paper", "authors": "masked, authors"}
    rows = []
    for kind, name in names.items():
        means = []
        largest = 0.0
        for one in by_seed(found):
            values = list(map(abs, pairs(one[kind])))
            means.append(fmean(values))
            largest = max(largest, *values)
        mean, error = summary(means)
        rows.append([name, f"{mean:.4f} ± {error:.4f}", f"{largest:.4f}"])
    return markdown(["", "mean of absolute cosines", "largest"], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw both matrices of the first seed."""
    seed = next(iter(by_seed(found)))
    with drawn(folder / "fig8.svg", 8.5, 4.2, ncols=2) as (figure, axes):
        largest = max(map(abs, pairs(seed["whole"])))
        image = None
        for axis, kind in zip(axes, ("whole", "paper"), strict=True):
            image = axis.imshow(seed[kind], vmin=-largest, vmax=largest, cmap="RdBu_r")
            axis.set_xticks(range(len(seed["tasks"])), seed["tasks"], rotation=60, ha="right")
            axis.set_yticks(range(len(seed["tasks"])), seed["tasks"])
            axis.grid(False)
            axis.set_title("task vectors" if kind == "whole" else "masked at 0.90/0.99")
        figure.colorbar(image, ax=axes, label="cosine")
