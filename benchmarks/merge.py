"""Time whole merges: this program, mergekit 0.1.5 and the floor, alternating, in one run.

    python -m benchmarks.merge --folder /tmp/breadcrumbs-benchmark

makes seeded checkpoints (once), a virtual environment with mergekit (once; `--mergekit none` leaves
it out), then runs each program several times as a process of its own and prints medians and ratios.
The result, with a description of the machine, is written as JSON. `--cold` drops the page cache
before every run, which only root may on Linux.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks import programs
from benchmarks.checkpoints import Size, make


def main() -> None:
    options = _options()
    folder = Path(options.folder)
    size = Size(options.hidden, options.inter, options.layers, options.vocabulary, options.dtype)
    base, *models = (make(folder, size, number) for number in range(options.models + 1))
    while len(models) < options.times_models * options.models:
        models += models[: options.models]
    models = models[: programs.job(options.method).models or None]
    output = folder / "out"
    more = ["--threads", str(options.threads)] if options.threads else []
    more += ["--max-memory", options.max_memory] if options.max_memory else []
    ours = programs.ours(options.method, options.program, base, models, output, *more)
    commands = {"breadcrumbs": ours}
    if options.mergekit != "none":
        commands["mergekit"] = programs.mergekit(
            options.method, options.mergekit, folder, size.dtype, base, models, output
        )
    commands["floor"] = _floor(base, models, output)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for round_ in range(options.rounds + 1):
        for name, command in commands.items():
            if name == "mergekit" and round_ > options.mergekit_rounds:
                continue
            run = programs.run(command, output, options.cold)
            print(f"{name}: {run['seconds']:.2f} s, {run['peak_mb']:.0f} MB", flush=True)
            if round_ or name == "mergekit":  # the first round warms up: caches
                runs[name].append(run)
    _result(options, size, len(models), runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", required=True, help="where checkpoints and outputs go")
    parser.add_argument("--method", default="breadcrumbs", choices=programs.JOBS)
    parser.add_argument("--models", type=int, default=4, help="fine-tuned checkpoints to make")
    parser.add_argument("--times-models", type=int, default=1, help="use each so many times")
    parser.add_argument("--dtype", default="bfloat16")
    for name, value in (("hidden", 1024), ("inter", 2816), ("layers", 24), ("vocabulary", 32000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mergekit-rounds", type=int, default=2)
    parser.add_argument("--mergekit", default="make", help="its venv; make: set one up; none")
    parser.add_argument("--program", help="the breadcrumbs to time; default: beside this Python")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--max-memory", default="")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _floor(base: Path, models: list[Path], output: Path) -> list[str]:
    inputs = [str(f) for model in (base, *models) for f in sorted(model.glob("*.safetensors"))]
    nbytes = sum(f.stat().st_size for f in base.glob("*.safetensors"))
    return [sys.executable, str(Path(__file__).with_name("floor.py")), str(output), str(nbytes),
            *inputs]  # fmt: skip


def _result(
    options: argparse.Namespace, size: Size, models: int, runs: dict[str, list[dict[str, float]]]
) -> None:
    medians = {
        name: {key: statistics.median(run[key] for run in mine) for key in mine[0]}
        for name, mine in runs.items()
        if mine
    }
    ours = medians["breadcrumbs"]["seconds"]
    result = {
        "method": options.method,
        "models": models,
        "parameters": size.parameters,
        "dtype": size.dtype,
        "cold": options.cold,
        "medians": medians,
        "times_faster_than_mergekit": medians["mergekit"]["seconds"] / ours
        if "mergekit" in medians
        else None,
        "times_the_floor": ours / medians["floor"]["seconds"],
        "ns_per_entry_and_model": ours / size.parameters / models * 1e9,
        "runs": runs,
    }
    programs.publish("merge", result, options.output, hidden="runs")


if __name__ == "__main__":
    main()
