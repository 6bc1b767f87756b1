"""Time a store of tasks as it grows: adding, removing and merging, against merging all tasks again.

    python -m benchmarks.store --folder /tmp/breadcrumbs-store --tasks 5 10 25 50
    python -m benchmarks.store --folder /tmp/breadcrumbs-store --tasks 200 --mergekit VENV

Checkpoints are made as for the other benchmarks: a Llama of 17 million weights in float32, with
noise in each weight of a fine-tuning. At each number of tasks, whole processes are timed: packing
a fine-tuning, adding the task file, taking it out again, writing the merged model, and
`breadcrumbs merge` of all task files (on a clock and on processors); with `--mergekit`, a virtual
environment that has it (or ``make``), also mergekit on all checkpoints, which then stay on disk;
without, what an earlier run found of it stays in ``--output``.
Sizes are what files take on the disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks import programs
from benchmarks.checkpoints import Size, make
from breadcrumbs.store import Store

METHOD = "breadcrumbs"
SIZE = Size(512, 1408, 4, 4000, "float32", 1)


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = make(folder, SIZE, 0)
    path = folder / "store"
    shutil.rmtree(path, ignore_errors=True)
    settings = programs.job(METHOD).ours[1::2]
    parameters = dict(text.split("=") for text in settings)
    Store.create(path, base, method=METHOD, **parameters).close()
    rows = []
    for number in range(1, max(options.tasks) + 1):
        model = make(folder, SIZE, number)
        if number in options.tasks:
            row = _time(path, base, model, number, folder, options)
            rows.append(row)
            print(json.dumps(row), flush=True)
        else:
            with Store.open(path) as store:
                store.add(f"t{number}", model)
        if options.mergekit == "none":
            shutil.rmtree(model)
    if options.mergekit == "none" and options.output and Path(options.output).exists():
        earlier = {
            row["tasks"]: row for row in json.loads(Path(options.output).read_text())["rows"]
        }
        for row in rows:
            its = earlier.get(row["tasks"], {})
            row |= {key: its[key] for key in its if key == "mergekit_seconds"}
    programs.publish("store", {"rows": rows}, options.output, hidden="")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", required=True, help="where everything goes")
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 10, 25, 50])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, the median counts")
    parser.add_argument("--mergekit", default="none", help="its venv; make: set one up; none")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _time(
    path: Path, base: Path, model: Path, number: int, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    """Add a task to a store and time what one can do with it then."""
    program = str(Path(sys.executable).with_name("breadcrumbs"))
    task, output, none = folder / "task.safetensors", folder / "out", folder / "none"
    name = f"t{number}"
    pack = [program, "task", "pack", str(base), str(model), "-o", str(task), "--name", name]
    for setting in programs.job(METHOD).ours[1::2]:
        pack += ["-p", setting] if "alpha" not in setting else []
    steps = {
        "pack": (pack, task),
        "add": ([program, "store", "add", str(path), name, str(task)], none),
        "remove": ([program, "store", "remove", str(path), name], none),
        "merge": ([program, "store", "merge", str(path), "-o", str(output)], output),
    }
    runs: dict[str, list[dict[str, float]]] = {key: [] for key in (*steps, "merge_all")}
    for round_ in range(options.rounds):
        for key in ("pack", "add", "merge", "remove"):
            runs[key].append(programs.run(*steps[key], cold=False))
        if round_ == 0:
            programs.run(*steps["add"], cold=False)
            with Store.open(path) as store:
                tasks = [path / "tasks" / f"{e.task}.safetensors" for e in store.entries()]
            programs.run(*steps["remove"], cold=False)
        command = programs.ours(METHOD, program, base, tasks, output)
        runs["merge_all"].append(programs.run(command, output, cold=False))
    programs.run(*steps["add"], cold=False)
    row: dict[str, object] = {"tasks": number}
    for key, mine in runs.items():
        for what in ("seconds", "cpu_seconds"):
            row[f"{key}_{what}"] = round(statistics.median(run[what] for run in mine), 2)
    if options.mergekit != "none":
        models = [make(folder, SIZE, n) for n in range(1, number + 1)]
        its = programs.mergekit(METHOD, options.mergekit, folder, SIZE.dtype, base, models, output)
        row["mergekit_seconds"] = round(programs.run(its, output, cold=False)["seconds"], 3)
    row["model_mb"] = _megabytes(model.glob("*.safetensors"))
    row["tasks_mb"] = _megabytes((path / "tasks").iterdir())
    row["sums_mb"] = _megabytes((path / "sums").iterdir())
    return row


def _megabytes(paths) -> float:
    """Return what files take on the disk: holes take nothing."""
    return round(sum(path.stat().st_blocks * 512 for path in paths) / 1e6, 1)


if __name__ == "__main__":
    main()
