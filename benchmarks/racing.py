"""What racing saves a search, and what it costs: `python -m benchmarks.racing FOLDER`.

One random search over the demo's family on all validation rows, and the same with `--race 0.1`:
points a minute of both. Then races with other draws of rows are replayed on the answers of the
first, on several shares, with anchors and with rows drawn evenly: the mean and the largest loss of
the chosen point against the best, on validation rows, in points, and how many points were scored on
all rows.
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
ANCHORS = racing.WEIGHT
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


def replayed(right, base, own, keys, scores, weight: float, share: float):
    """Return of each race how many points the chosen one is worse than the best, and the mean
    number of points that were scored on all rows."""
    racing.WEIGHT = weight
    losses, wholes = [], []
    for seed in range(DRAWS):
        rows = {
            task: racing.anchors(base[task], own[task], share, seed, task, keys[task])
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
        wholes.append(len(whole))
        losses.append(100 * (max(scores) - max(scores[n] for n in whole)))
    return losses, float(np.mean(wholes))


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
    for share in (0.02, 0.05, SHARE):
        for what, weight in (("anchors", ANCHORS), ("evenly", 1.0)):
            losses, whole = replayed(right, base, own, keys, scores, weight, share)
            print(
                f"{share} {what}: loss {np.mean(losses):.2f} points in the mean, {max(losses):.2f}"
                f" at most; {whole:.1f} of {TRIALS} on all rows"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
