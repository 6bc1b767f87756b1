"""Statistics of every fine-tuned model of a family, for `fisher` and `regmean`.

    python -m experiments.paper.gather --family FOLDER --seeds 0 1 2

Beside each model: fisher.safetensors, of one label of the model's own for each of 256 training
rows, and gram.safetensors, of the same rows. Three minutes a seed of text8 on two cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.paper.family import say

from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.task import Task
from breadcrumbs.evaluate.foundations.foundation import Batch
from breadcrumbs.evaluate.suite import Suite
from breadcrumbs.modules import statistics

ROWS = 256


def gather(suite: Suite, task: Task) -> None:
    """Write both files of the model that was fine-tuned on a task, where they are not yet."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    assert task.finetuned is not None
    folder = Path(task.finetuned)
    files = [folder / "fisher.safetensors", folder / "gram.safetensors"]
    if all(path.exists() for path in files):
        return
    foundation = suite.foundation
    with torch.no_grad():
        head = foundation.head(foundation.load(suite.base), task)
    model = foundation.load(task.finetuned)
    rows = task.rows("train")
    few = np.random.default_rng(0).permutation(len(rows))[:ROWS]
    rows = replace(rows, inputs=[rows.inputs[i] for i in few], labels=rows.labels[few])
    batches = [batch.inputs for batch in foundation.prepare(task, rows, 32)]

    def forward(module: Any, inputs: Mapping[str, Any]) -> Any:
        return foundation.logits(module, head, Batch(inputs, np.empty(0), None))

    statistics.fisher(model, batches, forward=forward, samples=1).save(files[0], force=True)
    statistics.gram(model, batches, forward=forward).save(files[1], force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--family", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn) as pool:
        for seed in options.seeds:
            suite = suites.load(str(options.family / f"seed-{seed}" / "suite.yaml")).tuning()
            done = pool.map(partial(gather, suite), suite.tasks)
            for task, _ in zip(suite.tasks, done, strict=True):
                say(f"seed {seed}: {task.name}")


if __name__ == "__main__":
    main()
