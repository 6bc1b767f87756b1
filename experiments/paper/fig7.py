"""Fig. 7: what each tail does: cut the bottom, the top, both or none."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from experiments.paper.drawing import drawn
from experiments.paper.family import Family, grid
from experiments.paper.tables import by_seed, markdown, percent

ALPHAS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.3, 1.6)
KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "none": ("task_arithmetic", grid(alpha=ALPHAS)),
    "top": ("top_masking", grid(outliers=[0.007, 0.01], alpha=ALPHAS)),
    "bottom": ("bottom_masking", grid(density=[0.1, 0.2], alpha=ALPHAS)),
    "both": (
        "breadcrumbs",
        [
            {"beta": beta, "gamma": gamma, "alpha": alpha}
            for beta in (0.85, 0.9)
            for gamma in (0.99, 0.993)
            for alpha in ALPHAS
        ],
    ),
}


def measure(family: Family) -> dict[str, Any]:
    """Return the validation scores of all settings of each kind, and the test score of the best."""
    result = {}
    for kind, (method, values) in KINDS.items():
        best, every = family.best([family.recipe(method, **one) for one in values], kind)
        (test,) = family.scores([best.recipe], "test")
        result[kind] = {
            "tried": [[dict(one.recipe.parameters), round(one.mean, 5)] for one in every],
            "best": dict(best.recipe.parameters),
            "test": round(test.mean, 5),
        }
    return result


def table(found: dict[str, Any]) -> str:
    """Return what each tail does."""
    rows = []
    every = by_seed(found)
    for kind in every[0]:
        scores = [sorted(value for _, value in one[kind]["tried"]) for one in every]
        rows.append(
            [
                kind,
                str(len(scores[0])),
                percent([one[0] for one in scores]),
                percent([median(one) for one in scores]),
                percent([one[-1] for one in scores]),
                percent([one[kind]["test"] for one in every]),
            ]
        )
    head = ["tails cut", "settings", "worst", "median", "best", "test of the best"]
    return markdown(head, rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw a violin of the validation scores of each kind; a dot: the best one's test score."""
    with drawn(folder / "fig7.svg", 5.0) as (_, axis):
        values = [
            [100 * one for seed in by_seed(found) for _, one in seed[kind]["tried"]]
            for kind in KINDS
        ]
        axis.violinplot(values, showmedians=True)
        for place, kind in enumerate(KINDS, 1):
            tests = [100 * seed[kind]["test"] for seed in by_seed(found)]
            axis.scatter([place] * len(tests), tests, color="#D55E00", s=12, zorder=3)
        axis.set_xticks(range(1, len(KINDS) + 1), [f"cut {kind}" for kind in KINDS])
        axis.set_ylabel("normalised accuracy, %")
