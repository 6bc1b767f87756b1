"""Learned weights on the demo's family: `python -m experiments.coefficients FOLDER [SEEDS]`.

Learns the weights of task arithmetic, and of what TIES leaves, from validation rows, in each way
that `breadcrumbs learn --what weights` knows; scores all on the test rows once, and prints a table:
percent of the task's own fine-tuned model, mean over tasks, a column a seed of the draw. What is
there already is not learned again. docs/with-data.md shows what came out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import demo_torch, with_data

from breadcrumbs.evaluate.data.drawn import Answers

TA, TIES = "task_arithmetic", "survivors"
#: Method, kind, what is known of a row, per what, rows, numbers.
RUNS: list[tuple[str, str, Answers, str, int, dict[str, str]]] = [
    (TA, "adamerging", "none", "model", 200, {}),
    (TA, "adamerging", "none", "tensor", 200, {}),
    (TA, "adamerging", "expert", "model", 200, {}),
    (TA, "adamerging", "expert", "tensor", 32, {}),
    (TA, "adamerging", "expert", "tensor", 200, {}),
    (TA, "adamerging", "labels", "tensor", 200, {}),
    (TIES, "adamerging", "none", "tensor", 200, {}),
    (TIES, "adamerging", "expert", "tensor", 200, {}),
    (TA, "symerge", "expert", "tensor", 200, {}),
    (TA, "symerge", "expert", "tensor", 200, {"hard": "true"}),
    (TA, "adarank", "none", "tensor", 200, {}),
    (TA, "adarank", "expert", "tensor", 200, {}),
    (TA, "frank-wolfe", "labels", "model", 100, {}),
    (TA, "frank-wolfe", "labels", "tensor", 100, {}),
    (TA, "frank-wolfe", "labels", "tensor", 100, {"oracle": "code"}),
    (TA, "frank-wolfe", "labels", "tensor", 100, {"rate": "0.2", "steps": "30"}),
    (TA, "frank-wolfe", "labels", "tensor", 100, {"rate": "0.2", "steps": "30", "oracle": "code"}),
]


def run(folder: Path, seeds: int) -> None:
    """Learn, score and print."""
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.data.drawn import Draw
    from breadcrumbs.evaluate.scoring import scores
    from breadcrumbs.evaluate.scoring.settings import Corrected, Settings, Spec
    from breadcrumbs.plan.recipe import Model, Recipe, load, to_yaml
    from breadcrumbs.tune.learn.weights import kinds, learned

    folder.mkdir(parents=True, exist_ok=True)
    made = suites.load(with_data.prepare(folder, demo_torch.__file__))
    models = tuple(Model(str(task.finetuned), name=task.name) for task in made.tasks)
    starts = [Recipe(made.base, models, method, {"alpha": 0.3}) for method in (TA, TIES)]
    specs: dict[str, list[Spec]] = {f"{start.method}, 0.3": [start] for start in starts}
    for seed in range(seeds):
        for method, kind, answers, per, rows, given in RUNS:
            name = "-".join([method, kind, answers, per, str(rows), *given.values()])
            path = folder / f"{name}-{seed}.yaml"
            heads = path.with_suffix(".heads.safetensors")
            if not path.exists():
                start = next(start for start in starts if start.method == method)
                settings = kinds.make(kind, answers, per, given)
                more: dict[str, Any] = {"device": "cpu", "precision": "float32"}
                draw, began = Draw("validation", rows, answers, seed), time.perf_counter()
                found = learned.learn(made, start, draw, settings, cache=cache.folder(), **more)
                if found.heads is not None:
                    found.heads.save(heads, force=True)
                path.write_text(to_yaml(found.recipe))
                print(f"{path.name}: {time.perf_counter() - began:.0f} s", flush=True)
            recipe = load(path)
            one = Corrected(recipe, str(heads)) if kind == "symerge" else recipe
            specs.setdefault(name, []).append(one)
    settings = Settings(str(folder / "results.sqlite"), workers=1, cache=cache.folder())
    order = [spec for some in specs.values() for spec in some]
    scored = scores.of(made, order, settings)
    own = {row.task: row.value for row in scored if row.own}
    values = [row.value / own[row.task] for row in scored[2 * len(own) :]]
    means = iter(100 * np.reshape(values, (len(order), len(own))).mean(1))
    for name, some in specs.items():
        print(f"| {name} | {' / '.join(f'{next(means):.1f}' for _ in some)} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
