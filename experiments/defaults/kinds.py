"""What ranking embeddings and heads row by row gains: `python -m experiments.defaults.kinds NAME`.

For each family, set of models and method: the gain at the length of the default alpha, ranked over
whole tensors, by kind (as it comes) and by row. A gain is the share of what fine-tuning gains in
loss, in percent: 0 is the base, 100 the fine-tunings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments.defaults import families, measure

import breadcrumbs

METHODS = ("breadcrumbs", "magnitude", "ties")
UNITS = ("tensor", "kind", "row")


def gains(family: families.Family) -> list[dict[str, Any]]:
    """Return a row for each set of models and method."""
    tasks = list(family.tasks)
    base = {task: family.loss(family.base, task) for task in tasks}
    own = {task: family.loss(family.tasks[task], task) for task in tasks}
    rows = []
    for chosen in measure.groups(tasks, (1, 2, 4, 8)):
        models = [family.tasks[task] for task in chosen]
        before, after = (float(np.mean([of[task] for task in chosen])) for of in (base, own))
        for method in METHODS:
            row: dict[str, Any] = {"models": len(chosen), "first": chosen[0], "method": method}
            for unit in UNITS:
                ties = (method, unit) == ("ties", "tensor")
                given: dict[str, Any] = {} if ties else {"granularity": unit}
                made = breadcrumbs.merge(family.base, models, method=method, threads=1, **given)
                loss = float(np.mean([family.loss(made, task) for task in chosen]))
                row["model" if not given else unit] = round(
                    100 * (before - loss) / abs(before - after)
                )
            rows.append(row)
            print(family.name, row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("kinds.json"))
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/breadcrumbs-experiments"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.names:
        found[name] = gains(families.make(name, given.cache))
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
