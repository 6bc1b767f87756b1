"""Whose the weights are that some task changed, by number of tasks: how many masks have each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from experiments.paper import tall
from experiments.paper.drawing import drawn
from experiments.paper.family import Family
from experiments.paper.tables import by_seed, markdown, percent

import breadcrumbs
from breadcrumbs import archives
from breadcrumbs.archives import votes


def measure(family: Family) -> dict[str, Any]:
    """Return the number of weights that 0, 1, 2, ... masks have, by number of tasks; scale 0.4."""
    result = {}
    for size in [size for size in tall.SIZES if size <= len(family.tasks)]:
        tasks = family.tasks[:size]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tasks.safetensors")
            models = [family.model(name) for name in tasks]
            breadcrumbs.compress(family.suite.base, models, path, names=tasks)
            with archives.open_archive(path) as archive:
                result[str(size)] = votes.by_layer(archive.votes())["all"]
    return result


def shares(found: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Return number of tasks -> the shares of each kind, by seed."""
    seeds = by_seed(found)
    return {size: [votes.shares(seed[size]) for seed in seeds] for size in seeds[0]}


def table(found: dict[str, Any]) -> str:
    """Return how many masks have the weights that were changed."""
    rows = []
    for size, every in shares(found).items():
        rows.append([size, *(percent([one[kind] for one in every]) for kind in every[0])])
    says = ("no mask (catastrophic)", "one (selfish)", "some (general)", "all (universal)")
    return markdown(["tasks", *(f"in {what}, %" for what in says)], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw the shares of weights, one bar for each number of tasks; means over seeds."""
    by_size = shares(found)
    with drawn(folder / "votes.svg", 4.2) as (_, axis):
        below = [0.0] * len(by_size)
        for kind in votes.KINDS:
            means = [sum(one[kind] for one in mine) / len(mine) for mine in by_size.values()]
            axis.bar(list(by_size), [100 * mean for mean in means], bottom=below, label=kind)
            below = [low + 100 * mean for low, mean in zip(below, means, strict=True)]
        axis.set_xlabel("tasks")
        axis.set_ylabel("changed weights, %")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
