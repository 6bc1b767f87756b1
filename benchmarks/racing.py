"""What racing saves a search, and what it costs: `python -m benchmarks.racing FOLDER`.

One random search over the demo's family on all validation rows, and the same with `--race 0.1`:
points a minute of both. Then races with other draws of rows are replayed on the answers of the
first, with anchors and with rows drawn evenly: the mean and the largest loss of the chosen point
against the best, on validation rows, in points. Ratios of one run; the machine's load is no part.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from experiments.with_data import prepare

from breadcrumbs.checkpoint import cache
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.drawn import keys_of
from breadcrumbs.evaluate.results.results import Results
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.tune import search
from breadcrumbs.tune.search import racing
from breadcrumbs.tune.search import suites as family
from breadcrumbs.tune.search.raced import right_of

TRIALS, BATCH, SHARE, DRAWS = 36, 6, 0.1, 50
FLAGS = [("alpha", "0.3:2"), ("beta", "0.5:0.95"), ("gamma", "0.99")]


def searched(suite, names, folder: Path, share: float | None):
    """Return the trials of a search and its minutes; the file of results is named after both."""
    (folder / f"{share}.sqlite").unlink(missing_ok=True)
    settings = Settings(str(folder / f"{share}.sqlite"), 1, "cpu", "float32", cache.folder())
    space = search.parse(("breadcrumbs",), FLAGS, names)
    began = time.perf_counter()
    with family.Validation(suite, names, settings, share) as evaluate:
        found = search.run(
            family.template(suite, names), space, evaluate, tasks=names, sampler="random",
            trials=TRIALS, batch=BATCH, race=evaluate.race,
        )  # fmt: skip
    return found, (time.perf_counter() - began) / 60


def replayed(right, base, own, keys, scores, weight: float) -> list[float]:
    """Return by how much the chosen point of each race is worse than the best, in points."""
    racing.WEIGHT = weight
    losses = []
    for seed in range(DRAWS):
        rows = {
            task: racing.anchors(base[task], own[task], SHARE, seed, task, keys[task])
            for task in own
        }
        raced, told, whole = {}, {}, []
        for first in range(0, TRIALS, BATCH):
            batch = range(first, min(first + BATCH, TRIALS))
            for n in batch:
                mine = {task: right[n][task][list(rows[task].places)] for task in rows}
                values = {task: rows[task].mean(mine[task]) for task in rows}
                raced[n] = racing.Raced(values, {}, mine)
                told[n] = float(np.mean([values[t] / own[t].mean() for t in rows]))
            whole += racing.kept(told, raced, batch, rows, True)
        losses.append(100 * (max(scores) - max(scores[n] for n in whole)))
    return losses


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    suite = suites.load(prepare(folder))
    names = [task.name for task in suite.tasks]
    found, slow = searched(suite, names, folder, None)
    _, fast = searched(suite, names, folder, SHARE)
    print(f"points a minute: {TRIALS / slow:.1f} on all rows, {TRIALS / fast:.1f} in a race")
    with Results(folder / "None.sqlite") as kept, Results(folder / f"{SHARE}.sqlite") as others:
        every = kept.select(split="validation")
        base = {r.task: right_of(r) for r in others.select(split="validation") if r.model == r.base}
    own = {row.task: right_of(row) for row in every if row.own}
    right = []
    for trial in found.trials:
        mine = {
            row.task: right_of(row)
            for row in every
            if not row.own
            and f"alpha {trial.point['alpha']}," in row.label
            and f"beta {trial.point['beta']}," in row.label
        }
        right.append(mine)
    keys = {name: keys_of(suite.task(name).rows("validation")) for name in names}
    scores = [trial.score for trial in found.trials]
    for what, weight in (("anchors", racing.WEIGHT), ("evenly", 1.0)):
        losses = replayed(right, base, own, keys, scores, weight)
        print(f"{what}: loss {np.mean(losses):.2f} points in the mean, {max(losses):.2f} at most")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
