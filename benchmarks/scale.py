"""Merges in parts against one process, in one run: the same bytes, and what they cost.

    python -m benchmarks.scale --folder /tmp/breadcrumbs-benchmark

makes seeded checkpoints (once) and merges them with one process, with `--on processes:2`, with
`--on ray` and two workers where Ray is installed, and part by part with `xargs -P 2`, where one
part is killed as soon as it has written something and all are run again. Every output is compared
with that of one process, all files, headers included. Prints seconds of the clock and of
processors; the latter hold where others use the machine too.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks import programs
from benchmarks.checkpoints import Size, make

PARTS = 4
#: Models, and the size of a file of the output: 374M parameters in 8 files, 24M in about 130.
CASES = {
    "374m": (Size(), "100MB"),
    "many": (Size(256, 704, 24, 4000, shards=1), "400KB"),
}
METHODS = {
    "breadcrumbs": ["-m", "breadcrumbs", "-p", "alpha=0.5"],
    "ties of the model": ["-m", "ties", "-p", "granularity=model"],
    "alpha auto": ["-m", "breadcrumbs", "-p", "alpha=auto"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--folder", required=True, help="where checkpoints and outputs go")
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2, help="of all processes together")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--output", help="JSON file to write")
    options = parser.parse_args()
    folder, rows = Path(options.folder), []
    for case in options.cases:
        size, shard = CASES[case]
        models = [make(folder, size, number) for number in range(options.models + 1)]
        for method in options.methods:
            command = [sys.executable, "-m", "breadcrumbs", "merge", *map(str, models)]
            command += [*METHODS[method], "-q", "--no-sync", "--shard-size", shard]
            rows += _compared(case, method, command, folder / "scale", options.threads)
    programs.publish("scale", {"rows": rows, "threads": options.threads}, options.output, "")


def _compared(
    case: str, method: str, command: list[str], folder: Path, threads: int
) -> list[dict[str, object]]:
    """Merge in all ways; return a row for each, after the output was compared with the first."""
    shutil.rmtree(folder, ignore_errors=True)
    one, alone = str(max(1, threads // 2)), str(threads)
    ways: dict[str, Callable[[str], int]] = {
        "one process": lambda out: _ran([*command, "-o", out, "--threads", alone]),
        "--on processes:2": lambda out: _ran(
            [*command, "-o", out, "--threads", alone, "--on", "processes:2"]
        ),
        "--on ray, two workers": lambda out: _ran(
            [*command, "-o", out, "--threads", one, "--on", "ray"]
        ),
        "xargs -P 2, one killed": lambda out: _parts([*command, "-o", out, "--threads", one]),
    }
    if find_spec("ray") is None:
        del ways["--on ray, two workers"]
    rows: list[dict[str, object]] = []
    for number, (way, run) in enumerate(ways.items()):
        out = folder / str(number) / "out"
        out.parent.mkdir(parents=True)
        before, began = _processors(), time.perf_counter()
        rounds = run(str(out))
        seconds = time.perf_counter() - began
        first = folder / "0" / "out"
        same = subprocess.run(["diff", "-r", first, out], capture_output=True).returncode == 0
        row = {
            "case": case,
            "method": method,
            "way": way,
            "seconds": round(seconds, 2),
            "processor_seconds": round(_processors() - before, 2),
            "rounds": rounds,
            "same_bytes": same,
        }
        print(", ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
        if not same:
            raise SystemExit(f"{out}: is not what one process wrote")
        rows.append(row)
        if number:
            shutil.rmtree(out)
    return rows


def _ran(command: list[str]) -> int:
    subprocess.run(command, check=True)
    return 1


def _parts(command: list[str]) -> int:
    """Merge part by part, one of which is killed once; return how many rounds that took."""
    killed = subprocess.Popen([*command, "--part", f"2/{PARTS}"], start_new_session=True)
    partial = Path(f"{command[command.index('-o') + 1]}.partial")
    while killed.poll() is None and not any(partial.glob("weights*/*")):
        time.sleep(0.01)
    if killed.poll() is None:
        os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    numbers = "".join(f"{number}\n" for number in range(1, PARTS + 1))
    for rounds in range(1, 20):
        each = ["xargs", "-P", "2", "-I", "{}", *command, "--part", f"{{}}/{PARTS}"]
        quiet = subprocess.run(each, input=numbers.encode(), stderr=subprocess.DEVNULL)
        if quiet.returncode == 0:
            subprocess.run([*command, "--commit"], check=True)
            return rounds
    raise SystemExit("parts wait without end")


def _processors() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
