"""Time a sweep: points a minute in memory, and by the loop "merge to disk, load, evaluate".

    python -m benchmarks.sweep                      # the demo's six fine-tunings, one process
    python -m benchmarks.sweep --suite suite.yaml   # a suite, in the processes of `evaluate`

Each round takes the same points in both ways, on validation rows. The loop is what one does without
a sweep: `breadcrumbs merge` writes a model to disk, and a fresh process loads and evaluates it. The
sweep is one process (or pool) that lives as long as the series; its start is counted. Scores must
be the same, or the benchmark stops. `--merge-only` leaves scoring out of both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import programs
from breadcrumbs.plan.recipe import Model, Recipe, to_yaml

Scores = list[dict[str, float]]
#: A way to score recipes, in a folder of its own.
Way = Callable[[Sequence[Recipe], Path], Scores]

_COMMAND = "from breadcrumbs.cli import main; main()"
#: Run in a fresh process: loads a model of the demo and prints what it scores.
_DEMO = """
import json, sys, breadcrumbs
from breadcrumbs.demo.model import accuracy, load_family
weights = dict(breadcrumbs.load(sys.argv[1]))
print(json.dumps({task: accuracy(weights, task, "validation") for task in load_family().tasks}))
"""


def main() -> None:
    options = _options()
    family, template, sweep, evaluate = _suite(options) if options.suite else _demo()
    if options.merge_only:
        sweep, evaluate = _merged_only, lambda path, folder: {}

    def loop(recipes: Sequence[Recipe], folder: Path) -> Scores:
        found = []
        for recipe in recipes:
            merged = folder / "merged"
            _merge(recipe, folder / "recipe.yaml", merged)
            found.append(evaluate(merged, folder))
            shutil.rmtree(merged)
        return found

    alphas = [round(0.1 * (i + 1), 1) for i in range(options.alphas)]
    betas = [round(0.8 + 0.18 * i / max(1, options.betas - 1), 4) for i in range(options.betas)]
    recipes = [
        Recipe(template.base, template.models, "breadcrumbs", {"beta": beta, "alpha": alpha})
        for beta, alpha in itertools.product(betas, alphas)
    ]
    ways: dict[str, Way] = {"sweep": sweep, "loop": loop}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):
        scores = {}
        for name, way in ways.items():
            some = recipes[: options.loop_points] if name == "loop" else recipes
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                began = time.perf_counter()
                scores[name] = way(some, Path(folder))
                took = (time.perf_counter() - began) / len(some)
            print(f"{name}: {took:.3f} s a point", flush=True)
            if round_:  # the first round warms up: caches
                seconds[name].append(took)
        if scores["loop"] != scores["sweep"][: len(scores["loop"])]:
            sys.exit("the two ways do not score the same")
    _result(options, family, len(recipes), seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--suite", help="suite.yaml with fine-tuned models; default: the demo")
    parser.add_argument("--alphas", type=int, default=8)
    parser.add_argument("--betas", type=int, default=3)
    parser.add_argument("--loop-points", type=int, default=6, help="of them for the loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--merge-only", action="store_true", help="merge, and do not score")
    parser.add_argument("--folder", help="where the loop's models go; default: the system's")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _merge(recipe: Recipe, path: Path, output: Path) -> None:
    path.write_text(to_yaml(recipe), encoding="utf-8")
    _run(_COMMAND, "merge", str(path), "-o", str(output), "-q")


def _run(program: str, *arguments: str) -> str:
    """Return what a program prints that a fresh process runs."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _merged_only(recipes: Sequence[Recipe], folder: Path) -> Scores:
    from breadcrumbs.merging.sweep import Sweep

    with Sweep(recipes[0].base) as sweep:
        for recipe in recipes:
            sweep.merged(recipe)
    return [{} for _ in recipes]


Evaluate = Callable[[Path, Path], dict[str, float]]


def _demo() -> tuple[str, Recipe, Way, Evaluate]:
    """Return the demo's name and family, its sweep, and how a fresh process evaluates."""
    from breadcrumbs.demo.model import accuracy, load_family
    from breadcrumbs.merging.sweep import Sweep

    family = load_family()
    models = tuple(Model(str(path), name=task) for task, path in family.finetuned.items())

    def sweep(recipes: Sequence[Recipe], folder: Path) -> Scores:
        found = []
        with Sweep(str(family.base)) as it:
            for recipe in recipes:
                merged = it.merged(recipe)
                found.append({task: accuracy(merged, task, "validation") for task in family.tasks})
        return found

    def evaluate(path: Path, folder: Path) -> dict[str, float]:
        return json.loads(_run(_DEMO, str(path)))

    return "demo", Recipe(str(family.base), models), sweep, evaluate


def _suite(options: argparse.Namespace) -> tuple[str, Recipe, Way, Evaluate]:
    """Return a suite's name and family, its pool, and how fresh processes evaluate a model.

    Rows of results are kept nowhere, so that all is computed; heads are kept by both.
    """
    from breadcrumbs.checkpoint import cache
    from breadcrumbs.evaluate import suite as suites
    from breadcrumbs.evaluate.scoring.settings import Settings
    from breadcrumbs.tune.search.suites import Validation, template

    suite = suites.load(options.suite)
    names = [task.name for task in suite.tasks]
    settings = Settings(workers=options.workers, cache=cache.folder())

    def sweep(recipes: Sequence[Recipe], folder: Path) -> Scores:
        with Validation(suite, names, settings) as evaluate:
            found = [(recipe, values) for recipe, values, _ in evaluate(recipes)]
        return [next(values for it, values in found if it == recipe) for recipe in recipes]

    def evaluate(path: Path, folder: Path) -> dict[str, float]:
        flags = ["--alone", "--split", "validation", "--json"]
        flags += ["--workers", str(options.workers)] if options.workers else []
        flags += ["--results", str(folder / f"{time.monotonic_ns()}.sqlite")]
        rows = _run(_COMMAND, "evaluate", options.suite, str(path), *flags)
        return {row["task"]: row["value"] for row in json.loads(rows)}

    return suite.name, template(suite, names), sweep, evaluate


def _result(
    options: argparse.Namespace, family: str, points: int, seconds: dict[str, list[float]]
) -> None:
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    result = {
        "family": family,
        "points": points,
        "scored": not options.merge_only,
        "points_a_minute": {name: 60 / took for name, took in medians.items()},
        "times_faster_than_the_loop": medians["loop"] / medians["sweep"],
        "seconds_a_point": seconds,
    }
    programs.publish("sweep", result, options.output, hidden="seconds_a_point")


if __name__ == "__main__":
    main()
