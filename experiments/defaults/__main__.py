"""`python -m experiments.defaults [NAME ...]`: measure families, keep what was found."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from experiments.defaults import families, measure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.defaults", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(families.names())}; default: all")
    parser.add_argument("--out", type=Path, default=Path("defaults"), help="a file for each family")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache/breadcrumbs-experiments"
    )
    parser.add_argument("--quick", action="store_true", help="as of a large family")
    given = parser.parse_args()
    torch.set_num_threads(2 if given.names and set(given.names) <= families.LARGE else 1)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.names or families.names():
        began = time.monotonic()
        family = families.make(name, given.cache)
        print(f"{name}: made in {time.monotonic() - began:.0f} s", flush=True)
        quick = given.quick or name in families.LARGE
        found = measure.measured(family, (2,) if quick else (1, 2, 4, 8), quick)
        (given.out / f"{name}.json").write_text(json.dumps(found))
        print(f"{name}: measured in {time.monotonic() - began:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
