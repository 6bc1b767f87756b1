"""Table 2: a fine-tuned model improved on its own task by the others (`onto`, section 4.5).

Every fine-tuned model of every seed is one run: the masked task vectors of all others are added to
it. Parameters are chosen on validation rows of its task, where "add nothing" is allowed too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.paper.choosing import COMPARED, summary
from experiments.paper.drawing import NAMES
from experiments.paper.family import Family, grid, say
from experiments.paper.tables import by_seed, markdown

ALPHAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
TRIED: dict[str, list[dict[str, Any]]] = {
    "task_arithmetic": grid(alpha=ALPHAS),
    "breadcrumbs": [
        {**tails, "alpha": alpha}
        for tails in ({"beta": 0.85, "gamma": 0.993}, {"beta": 0.9, "gamma": 0.99})
        for alpha in (0.1, 0.2, 0.3, 0.5, 0.8)
    ],
}


def measure(family: Family) -> dict[str, Any]:
    """Return, of each task, what the fine-tuned model scores on test rows, before and after."""
    result: dict[str, Any] = {}
    own = {split: family.own(split) for split in ("validation", "test")}
    base = family.base("test")
    for target in family.tasks:
        others = [name for name in family.tasks if name != target]
        row: dict[str, Any] = {"base": base[target], "fine-tuned": own["test"][target]}
        for method in COMPARED:
            recipes = [
                replace(family.recipe(method, others, **values), onto=family.model(target))
                for values in TRIED[method]
            ]
            mine = [[target]] * len(recipes)
            found = family.scores(recipes, "validation", mine, f"{target} {method}")
            best = max(found, key=lambda one: one.raw)
            row[method] = {"parameters": None, "test": own["test"][target]}
            if best.raw > own["validation"][target]:
                (test,) = family.scores([best.recipe], "test", [[target]])
                row[method] = {"parameters": dict(best.recipe.parameters), "test": test.raw}
        say(f"{target}: {row}")
        result[target] = row
    return result


def table(found: dict[str, Any]) -> str:
    """Return what the others' task vectors add to a fine-tuned model."""
    runs = [row for seed in by_seed(found) for row in seed.values()]
    own = [row["fine-tuned"] for row in runs]
    rows = []
    for method in COMPARED:
        gains = [row[method]["test"] - mine for row, mine in zip(runs, own, strict=True)]
        used = [g for g, row in zip(gains, runs, strict=True) if row[method]["parameters"]]
        mean, error = summary(gains)
        better, worse = sum(gain > 0 for gain in used), sum(gain < 0 for gain in used)
        rows.append(
            [
                NAMES[method],
                f"{100 * mean:+.2f} ± {100 * error:.2f}",
                str(len(used)),
                str(better),
                str(worse),
            ]
        )
    head = ["added", "points of test accuracy", f"tried on, of {len(runs)}", "better", "worse"]
    mean, error = summary(own)
    return f"Fine-tuned models score {100 * mean:.1f} on average.\n\n{markdown(head, rows)}"


def draw(found: dict[str, Any], folder: Path) -> None:
    """Nothing is drawn: docs/paper.md has the table."""
