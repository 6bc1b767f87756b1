"""Time every method: on one job, against mergekit's same-named method where there is one.

    python -m benchmarks.methods --folder /tmp/breadcrumbs-benchmark

Each method runs as whole processes, those of this program and of mergekit alternating; medians are
printed and written as JSON. Methods that take a matrix of every model at once, and those that look
at the whole model before they write, run on a smaller job (hidden 512, 4 layers); spectral ones
beside a program that computes nothing but the singular value decompositions that they need
(`benchmarks/svds.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from benchmarks import programs
from benchmarks.checkpoints import Size, make
from benchmarks.svds import NEEDS
from breadcrumbs.methods.aggregates import Elementwise, Whole
from breadcrumbs.methods.registry import METHODS

#: Seconds after which a program is not run again.
SLOW = 30.0
SMALL = Size(hidden=512, inter=1408, layers=4, vocabulary=4000, dtype="float32", shards=1)


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    path = Path(options.output) if options.output else None
    rows = json.loads(path.read_text())["methods"] if path and path.exists() else {}
    for method in options.methods or METHODS:
        if METHODS[method].statistics:  # which this benchmark has none of
            continue
        rows[method] = _time(method, folder, options)
        print(method, json.dumps(rows[method]), flush=True)
        if path:
            command = "python -m benchmarks.methods --folder FOLDER"
            found = {"methods": rows, "machine": programs.machine(), "command": command}
            path.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("methods", nargs="*", choices=[[], *METHODS], help="default: all")
    parser.add_argument("--folder", required=True, help="where checkpoints and outputs go")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit-rounds", type=int, default=1)
    parser.add_argument("--mergekit", default="make", help="its venv; make: set one up; none")
    parser.add_argument("--program", help="the breadcrumbs to time; default: beside this Python")
    parser.add_argument("--output", help="JSON file to write; rows of other methods stay")
    return parser.parse_args()


def _time(method: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    aggregate = METHODS[method].aggregate
    prepares = isinstance(aggregate, Elementwise) and aggregate.prepare is not None
    size = SMALL if prepares or isinstance(aggregate, Whole) else Size()
    job = programs.job(method)
    base, *models = (make(folder, size, number) for number in range(5))
    models = models[: job.models or aggregate.models[1]]
    output = folder / "out"
    commands = {"breadcrumbs": programs.ours(method, options.program, base, models, output)}
    if options.mergekit != "none" and job.theirs is not None:
        commands["mergekit"] = programs.mergekit(
            method, options.mergekit, folder, size.dtype, base, models, output
        )
    if method in NEEDS:
        svds = str(Path(__file__).with_name("svds.py"))
        threads = str(os.cpu_count())
        commands["svds"] = [sys.executable, svds, method, threads, str(base), *map(str, models)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for round_ in range(options.rounds):
        for name, command in commands.items():
            slow = any(run["seconds"] > SLOW for run in runs[name])
            if not slow and (name != "mergekit" or round_ < options.mergekit_rounds):
                runs[name].append(programs.run(command, output, cold=False))
    row: dict[str, object] = {"models": len(models), "parameters": size.parameters}
    for name, mine in runs.items():
        for key in ("seconds", "cpu_seconds", "peak_mb"):
            row[f"{name}_{key}"] = round(statistics.median(run[key] for run in mine), 3)
    seconds = statistics.median(run["seconds"] for run in runs["breadcrumbs"])
    row["ns_per_entry_and_model"] = round(seconds / size.parameters / len(models) * 1e9, 2)
    for name, key in (("mergekit", "times_faster_than_mergekit"), ("svds", "times_the_svds")):
        if name in runs:
            other = statistics.median(run["seconds"] for run in runs[name])
            row[key] = round(other / seconds if name == "mergekit" else seconds / other, 2)
    return row


if __name__ == "__main__":
    main()
