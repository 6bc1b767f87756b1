"""Fig. 5: the size of the foundation. One run for each family; sizes stand side by side.

Smaller foundations come from `python -m experiments.foundations`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.paper.choosing import COMPARED, mean, settings, summary
from experiments.paper.drawing import COLOURS, NAMES, drawn
from experiments.paper.family import Family, say
from experiments.paper.tables import by_seed, markdown, percent
from experiments.paper.tall import weights


def measure(family: Family) -> dict[str, Any]:
    """Return, by the weights that were trained, the scores of both methods on all tasks."""
    base, own = family.base("test"), family.own("test")
    result: dict[str, Any] = {
        "base": mean(base),
        "base normalised": mean({name: base[name] / own[name] for name in own}),
        "fine-tuned": mean(own),
    }
    for method in COMPARED:
        recipes = [family.recipe(method, **values) for values in settings(method)]
        best, _ = family.best(recipes, method)
        (test,) = family.scores([best.recipe], "test")
        result[method] = {
            "parameters": dict(best.recipe.parameters),
            "test": round(test.mean, 5),
            "raw": round(test.raw, 5),
        }
        say(f"{method}: {result[method]}")
    return {str(weights(family, family.tasks)[0]): result}


def sizes(found: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return weights trained -> what each seed gave, smallest first."""
    every = by_seed(found)
    names = sorted({size for one in every for size in one}, key=int)
    return {size: [one[size] for one in every if size in one] for size in names}


def table(found: dict[str, Any]) -> str:
    """Return accuracy by size of the foundation."""
    rows = []
    for size, every in sizes(found).items():
        keys = ("base", "fine-tuned", "base normalised")
        rows.append(
            [
                f"{int(size) / 1e6:.1f}M",
                *(percent([one[key] for one in every]) for key in keys),
                *(percent([one[method]["test"] for one in every]) for method in COMPARED),
            ]
        )
    head = ["weights trained", "base, raw", "fine-tuned, raw", "base"]
    return markdown([*head, *(NAMES[method] for method in COMPARED)], rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Draw normalised accuracy against the weights that were trained."""
    by_size = sizes(found)
    with drawn(folder / "fig5.svg", 5.0) as (_, axis):
        across = [int(size) / 1e6 for size in by_size]
        for method in COMPARED:
            points = [summary([one[method]["test"] for one in e]) for e in by_size.values()]
            axis.errorbar(
                across,
                [100 * value for value, _ in points],
                [100 * error for _, error in points],
                color=COLOURS[method],
                label=NAMES[method],
                marker="o",
                markersize=3,
            )
        bases = [summary([one["base normalised"] for one in e])[0] for e in by_size.values()]
        axis.plot(across, [100 * value for value in bases], ":", color="#999999", label="base")
        axis.set_xlabel("weights trained, millions")
        axis.set_ylabel("normalised accuracy, %")
        axis.legend()
