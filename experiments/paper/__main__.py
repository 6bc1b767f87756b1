"""Measure and draw one figure: `python -m experiments.paper NAME --family FOLDER`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from experiments.paper.family import Family, say, seeds
from experiments.paper.pages import NAMES, RESULTS

from breadcrumbs.version import __version__

HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.paper", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--family", help="folder that `breadcrumbs finetune` wrote, or a suite that names models"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: all of the family")
    parser.add_argument("--out", type=Path, help="default: experiments/results/NAME.json")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    parser.add_argument("--rows", type=int, help="score so many rows of each task; default: all")
    parser.add_argument(
        "--methods", nargs="+", help="of table1, beside what was measured; of alpha"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="of alpha: numbers of tasks; default: all"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; default: all cores")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured")
    options = parser.parse_args()
    figure = importlib.import_module(f"experiments.paper.{options.name}")
    path = options.out or RESULTS / f"{options.name}.json"
    if not options.draw and not options.family:
        parser.error("give --family, or --draw")
    if options.methods and options.name not in ("table1", "alpha"):
        parser.error("--methods goes with table1 and alpha")
    if options.sizes and options.name != "alpha":
        parser.error("--sizes goes with alpha")
    for seed in [] if options.draw else options.seeds or seeds(options.family):
        say(f"{options.name}: seed {seed}")
        began = time.monotonic()
        with Family(options.family, seed, options.workers, options.rows) as family:
            asked = {"methods": options.methods, "numbers": options.sizes}
            measured = figure.measure(family, **{k: v for k, v in asked.items() if v})
        suite = getattr(figure, "SUITE", family.name)
        one = not hasattr(figure, "SUITE")  # of several families each has its own number
        rows = f" --rows {options.rows}" if options.rows and one else ""
        seconds = time.monotonic() - began
        cores = options.workers or os.cpu_count() or 1
        keep(path, suite, seed, measured, seconds, bool(options.methods), rows, cores)
    figure.draw(json.loads(path.read_text()), options.figures)


def keep(
    path: Path,
    suite: str,
    seed: int,
    measured: dict[str, Any],
    seconds: float,
    more: bool = False,
    flags: str = "",
    cores: int = 1,
) -> None:
    """Write what one seed gave beside that of others of the same suite.

    Parts that a figure measures in several runs (sizes of foundations, methods) stand side by side.
    more: whether the seconds are those of another part; parts that are new here always are. flags:
    that the figure was measured with. cores: on how many.
    """
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("suite", suite) != suite:
        raise SystemExit(f"{path}: holds results of {found['suite']}, not {suite}. Give --out.")
    found = found or {"suite": suite, "seeds": {}, "seconds": {}}
    mine = found["seeds"].setdefault(str(seed), {})
    more = more or not measured.keys() <= mine.keys()
    for part, value in measured.items():
        both = isinstance(value, dict) and isinstance(mine.get(part), dict)
        mine[part] = mine[part] | value if both else value
    found["seconds"][str(seed)] = round(seconds + more * found["seconds"].get(str(seed), 0))
    found["machine"] = f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
    found["version"] = __version__
    found["command"] = f"python -m experiments.paper {path.stem} --family FOLDER{flags}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
