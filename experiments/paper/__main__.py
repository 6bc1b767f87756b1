"""Measure and draw one figure: `python -m experiments.paper NAME --family FOLDER`."""

from __future__ import annotations

import argparse
import importlib
import json
import operator
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.paper.demo import Demo
from experiments.paper.family import Family, say, seeds
from experiments.paper.frontier import PARTS
from experiments.paper.pages import NAMES, RESULTS

from breadcrumbs.version import __version__

HERE = Path(__file__).resolve().parent.parent
#: What some figures alone take.
TAKEN = {"methods": ("frontier", "alpha"), "sizes": ("frontier", "alpha"), "parts": ("frontier",)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.paper", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument(
        "--family",
        help="folder that `breadcrumbs finetune` wrote, or a suite that names models; of frontier"
        " also `demo`",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: all of the family")
    parser.add_argument(
        "--out", type=Path, help="default: experiments/results/NAME.json, or frontier-SUITE.json"
    )
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    parser.add_argument("--rows", type=int, help="score so many rows of each task; default: all")
    parser.add_argument("--methods", nargs="+", help="of frontier and alpha; default: all")
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="of frontier and alpha: numbers of tasks; default: all"
    )
    parser.add_argument(
        "--parts", choices=PARTS, nargs="+", help="of frontier: what to measure; default: all"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; default: all cores")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured")
    options = parser.parse_args()
    figure = importlib.import_module(f"experiments.paper.{options.name}")
    if not options.draw and not options.family:
        parser.error("give --family, or --draw")
    for option, names in TAKEN.items():
        if getattr(options, option) and options.name not in names:
            parser.error(f"--{option} goes with {' and '.join(names)}")
    several = options.name == "frontier"
    path = options.out or RESULTS / f"{options.name}.json"
    for seed in [] if options.draw else options.seeds or seeds(options.family):
        say(f"{options.name}: seed {seed}")
        began = time.monotonic()
        with opened(options.family, seed, options.workers, options.rows) as family:
            suite = getattr(figure, "SUITE", family.name)
            one = not hasattr(figure, "SUITE")  # of several families each has its own number
            rows = f" --rows {options.rows}" if options.rows and one else ""
            if several and not options.out:
                few = f"-{options.rows}" if options.rows else ""
                path = RESULTS / f"{options.name}-{family.suite.name}{few}.json"
            more = several or bool(options.methods)
            cores = options.workers or os.cpu_count() or 1
            for measured in measuring(figure, family, options, path):
                seconds = time.monotonic() - began
                keep(path, suite, seed, measured, seconds, more, rows, cores, options.name)
                began = time.monotonic() if several else began
    figure.draw(json.loads(path.read_text()), options.figures)


def opened(source: str, seed: int, workers: int, rows: int | None) -> Family | Demo:
    """Return the family that is meant."""
    return Demo() if source == "demo" else Family(source, seed, workers, rows)


def measuring(
    figure: Any, family: Family | Demo, options: argparse.Namespace, path: Path
) -> Iterator[dict[str, Any]]:
    """Yield what a figure measures, in as many steps as it takes."""
    asked = {"methods": options.methods, "numbers": options.sizes, "parts": options.parts}
    given = {key: value for key, value in asked.items() if value}
    if not hasattr(figure, "steps"):
        yield figure.measure(family, **given)
        return
    found = json.loads(path.read_text())["seeds"] if path.exists() else {}
    yield from figure.steps(family, found.get(str(family.seed), {}), **given)


def keep(
    path: Path,
    suite: str,
    seed: int,
    measured: dict[str, Any],
    seconds: float,
    more: bool = False,
    flags: str = "",
    cores: int = 1,
    name: str = "",
) -> None:
    """Write what one seed gave beside that of others of the same suite.

    Parts that a figure measures in several runs (sizes of foundations, methods) stand side by side.
    more: whether the seconds are those of another part; parts that are new here always are. flags:
    that the figure was measured with. cores: on how many. name: of the figure, if not the file's.
    """
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("suite", suite) != suite:
        raise SystemExit(f"{path}: holds results of {found['suite']}, not {suite}. Give --out.")
    found = found or {"suite": suite, "seeds": {}, "seconds": {}}
    mine = found["seeds"].setdefault(str(seed), {})
    more = more or not measured.keys() <= mine.keys()
    for part, value in measured.items():
        both = isinstance(value, dict) and isinstance(mine.get(part), dict)
        join = _joined if name == "frontier" else operator.or_  # several may run at once
        mine[part] = join(mine[part], value) if both else value
    found["seconds"][str(seed)] = round(seconds + more * found["seconds"].get(str(seed), 0), 1)
    found["machine"] = f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
    found["version"] = __version__
    found["command"] = f"python -m experiments.paper {name or path.stem} --family FOLDER{flags}"
    path.parent.mkdir(exist_ok=True)
    written = path.with_suffix(".part")
    written.write_text(json.dumps(found, indent=1) + "\n")
    written.replace(path)


def _joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return both, of the same key the new one; dicts joined likewise."""
    found = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            found[key] = _joined(old[key], new[key])
    return found


if __name__ == "__main__":
    main()
