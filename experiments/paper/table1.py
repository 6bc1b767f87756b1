"""Table 1: methods on all tasks of a suite. Parameters by validation, test once.

Every method gets the same care: its published settings, and alpha (or what stands for it) from a
list. `fisher` and `regmean` need `python -m experiments.paper.gather` first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.paper.drawing import NAMES
from experiments.paper.family import Family, grid, say
from experiments.paper.tables import by_seed, markdown, parameters, percent

from breadcrumbs.errors import listing

ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.3)
TAILS = ({"beta": 0.85, "gamma": 0.993}, {"beta": 0.9, "gamma": 0.99}, {"beta": 0.8, "gamma": 0.99})
LARGE = (0.3, 0.5, 0.7, 1.0, 1.3, 1.6)

#: What is tried of each method.
TRIED: dict[str, list[dict[str, Any]]] = {
    "average": [{}],
    "fisher": [{}],
    "regmean": [{}],
    "task_arithmetic": grid(alpha=ALPHAS),
    "breadcrumbs": [{**tails, "alpha": alpha} for tails in TAILS for alpha in LARGE],
    "random_sparsed": grid(density=[0.1, 0.5], alpha=[0.3, 0.5, 1.0, 2.0, 3.0, 4.0]),
    "bottom_masking": grid(density=[0.1, 0.2], alpha=LARGE),
    "top_masking": grid(outliers=[0.01], alpha=ALPHAS),
    "magnitude": grid(density=[0.2], alpha=LARGE),
    "ties": grid(density=[0.2], alpha=LARGE),
    "dare_linear": grid(p=[0.9], alpha=ALPHAS),
    "dare_ties": grid(p=[0.9], alpha=ALPHAS),
    "della": grid(alpha=ALPHAS),
    "della_linear": grid(alpha=ALPHAS),
    "breadcrumbs_ties": grid(beta=[0.85], gamma=[0.993], alpha=LARGE),
    "consensus": grid(k=[1, 2], on=["sum", "ties"], alpha=ALPHAS),
    "tatr": grid(alpha=ALPHAS),
    "pcb": grid(alpha=[0.3, 0.5, 0.8, 1.0, 1.2, 1.5]),
    "tvq": grid(alpha=ALPHAS),
    "rtvq": grid(alpha=ALPHAS),
    "lines": grid(alpha=[0.05, 0.1, 0.2, 0.3], beta=[0.05, 0.1, 0.3, 0.5]),
    "localize_and_stitch": grid(alpha=LARGE),
    "emr": [{}],
    "star": grid(alpha=[0.3, 0.5, 0.7, 1.0, 1.5, 2.0]),
    "tsv_m": grid(alpha=[0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5]),
    "iso_c": grid(alpha=[0.5, 0.75, 1.0, 1.25, 1.5]),
    "iso_cts": grid(alpha=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]),
    "model_stock": [{}],
    "karcher": [{}],
    "multislerp": [{}],
    "sce": [{}],
    "cabs": grid(alpha=ALPHAS),
    "wudi": grid(alpha=[0.2, 0.3, 0.5, 0.7, 1.0, 1.3]),
}
AUTHORS = "breadcrumbs (authors)"


def measure(family: Family, methods: Sequence[str] = ()) -> dict[str, Any]:
    """Return, of each method, what was tried on validation rows, and the test score of the best.

    methods: names of those to measure; all unless told.
    """
    tried = {name: (name, values) for name, values in TRIED.items()}
    mine = [{**values, "variant": "authors"} for values in TRIED["breadcrumbs"]]
    tried[AUTHORS] = ("breadcrumbs", mine)
    unknown = [name for name in methods if name not in tried]
    if unknown:
        raise SystemExit(f"--methods: no {listing(unknown)}. There are {listing(tried, 99)}.")
    result: dict[str, Any] = {"base": family.base("test"), "fine-tuned": family.own("test")}
    result["methods"] = {}
    for name, (method, values) in tried.items():
        if methods and name not in methods:
            continue
        recipes = [family.recipe(method, **parameters) for parameters in values]
        given = [model.statistics for model in recipes[0].models if model.statistics]
        if not all(map(os.path.isfile, given)):
            say(f"{name}: left out, `python -m experiments.paper.gather` has not run")
            continue
        best, all_ = family.best(recipes, name)
        (test,) = family.scores([best.recipe], "test")
        result["methods"][name] = {
            "parameters": dict(best.recipe.parameters),
            "validation": best.mean,
            "test": test.mean,
            "raw": test.raw,
            "tasks": dict(test.values),
            "tried": [[dict(one.recipe.parameters), round(one.mean, 5)] for one in all_],
        }
        say(f"{name:24} {test.mean:.4f} {dict(best.recipe.parameters)}")
    return result


def table(found: dict[str, Any]) -> str:
    """Return methods by what they reach on test rows."""
    every = by_seed(found)
    own = [one["fine-tuned"] for one in every]
    base = [
        sum(value / mine[name] for name, value in one["base"].items()) / len(mine)
        for one, mine in zip(every, own, strict=True)
    ]
    raw = [fmean(one["base"].values()) for one in every]
    rows = [["base", percent(base), percent(raw), "", ""]]
    names = [name for name in every[0]["methods"] if all(name in one["methods"] for one in every)]
    for name in sorted(names, key=lambda n: sum(one["methods"][n]["test"] for one in every)):
        mine = [one["methods"][name] for one in every]
        chosen = [one["parameters"] for one in mine]
        for one in chosen:
            one.pop("variant", None)
        rows.append(
            [
                NAMES.get(name, f"`{name}`"),
                percent([one["test"] for one in mine]),
                percent([one["raw"] for one in mine]),
                percent([one["validation"] for one in mine]),
                parameters(chosen),
            ]
        )
    raw = [fmean(one.values()) for one in own]
    rows.append(["fine-tuned, each on its task", "100", percent(raw), "", ""])
    head = ["method", "normalised, %", "raw, %", "validation, %", "chosen"]
    return markdown(head, rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Nothing is drawn: docs/paper.md has the table."""
