"""Time merging from task files against merging the checkpoints that they were packed from.

    python -m benchmarks.tasks --folder /tmp/breadcrumbs-benchmark

makes seeded checkpoints (once), packs each, merges all of them from the files and from the
checkpoints, alternating, each as a process of its own, compares the bits of both results, and
prints sizes, medians and ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks import programs
from benchmarks.checkpoints import Size, make
from breadcrumbs.checkpoint.hashing import model_hash


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    size = Size(options.hidden, options.inter, options.layers, options.vocabulary, options.dtype)
    base, *models = (make(folder, size, number) for number in range(options.models + 1))
    output = folder / "out"
    params = [part for pair in options.param for part in ("-p", pair)]
    program = str(options.program or Path(sys.executable).with_name("breadcrumbs"))
    more = ["--threads", str(options.threads)] if options.threads else []
    runs: dict[str, list[dict[str, float]]] = {"pack": [], "tasks": [], "checkpoints": []}
    files = []
    for number, model in enumerate(models, 1):
        files.append(folder / f"task{number}.safetensors")
        files[-1].unlink(missing_ok=True)
        pack = [program, "task", "pack", str(base), str(model), *params, *more]
        run = programs.run([*pack, "-o", str(files[-1]), "--json"], output, options.cold)
        del run["peak_mb"]
        print(f"pack: {run['seconds']:.2f} s, {run['cpu_seconds']:.2f} s of processors", flush=True)
        runs["pack"].append(run)
    merge = [program, "merge", "-m", "breadcrumbs", "-p", "alpha=0.4", *more, "--json"]
    commands = {
        "tasks": [*merge, str(base), *map(str, files)],
        "checkpoints": [*merge, *params, str(base), *map(str, models)],
    }
    for round_ in range(options.rounds + 1):
        weights = []
        for name, command in commands.items():
            run = programs.run([*command, "-o", str(output)], output, options.cold)
            report = json.loads(output.with_name("log.txt").read_text())
            run["peak_mb"] = report["peak"] / 1e6  # the system counts this process's in
            weights.append(model_hash(output))
            if round_:  # the first round warms up: caches
                print(
                    f"{name}: {run['seconds']:.2f} s, {run['cpu_seconds']:.2f} s of processors,"
                    f" {run['peak_mb']:.0f} MB",
                    flush=True,
                )
                runs[name].append(run)
        if weights[0] != weights[1]:
            raise SystemExit("the merged weights differ")
    _result(options, size, files, models, runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", required=True, help="where checkpoints and outputs go")
    parser.add_argument("--models", type=int, default=8, help="fine-tuned checkpoints to make")
    parser.add_argument("--param", nargs="*", default=["beta=0.9", "gamma=0.99"])
    parser.add_argument("--dtype", default="bfloat16")
    for name, value in (("hidden", 1024), ("inter", 2816), ("layers", 24), ("vocabulary", 32000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", help="the breadcrumbs to time; default: beside this Python")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _result(
    options: argparse.Namespace,
    size: Size,
    files: list[Path],
    models: list[Path],
    runs: dict[str, list[dict[str, float]]],
) -> None:
    medians = {
        name: {key: statistics.median(run[key] for run in mine) for key in mine[0]}
        for name, mine in runs.items()
    }
    whole = [sum(f.stat().st_size for f in model.glob("*.safetensors")) for model in models]
    packed = [file.stat().st_size for file in files]
    result = {
        "models": len(models),
        "parameters": size.parameters,
        "dtype": size.dtype,
        "kept": options.param,
        "cold": options.cold,
        "bytes_of_a_checkpoint": statistics.median(whole),
        "bytes_of_a_task": statistics.median(packed),
        "share_of_bytes": sum(packed) / sum(whole),
        "medians": medians,
        "times_faster": medians["checkpoints"]["seconds"] / medians["tasks"]["seconds"],
        "times_less_processor": medians["checkpoints"]["cpu_seconds"]
        / medians["tasks"]["cpu_seconds"],
        "runs": runs,
    }
    programs.publish("tasks", result, options.output, hidden="runs")


if __name__ == "__main__":
    main()
