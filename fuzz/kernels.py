"""The kernels in C, compiled with checks, on what their tests draw: other examples in every run.

    python fuzz/kernels.py [SECONDS]

Tests of `tests/kernels` run in any order until the time is up, 60 seconds unless told. The library
stops the process where it reads or writes out of bounds, or does what C leaves undefined. Needs gcc
with its sanitizers.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from breadcrumbs.kernels.native import build

ROOT = Path(__file__).resolve().parent.parent
#: Asks Python to know the checks from its start.
PRELOAD = "LD_PRELOAD"


class Budget:
    """Shuffles the tests, and skips those that begin when the time is up."""

    def __init__(self, seconds: float) -> None:
        self.end, self.ran = time.monotonic() + seconds, 0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        random.shuffle(items)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() > self.end:
            pytest.skip("the time is up")
        self.ran += 1


def checked() -> dict[str, str]:
    """Build the library with checks; return an environment in which Python uses it."""
    command = build.compiler()
    assert command, "no compiler of C is installed"
    path = build.HERE / f"kernels-sanitized{build.SUFFIX}"
    print(build.build(path, command, sanitize=True, kept=build.objects_of(path.name)), flush=True)
    asked = [*command, "-print-file-name=libasan.so"]
    asan = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(asan).is_absolute(), "this compiler has no libasan.so; give CC=gcc"
    return {
        **os.environ,
        PRELOAD: asan,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "BREADCRUMBS_LIBRARY": str(path),
    }


def main() -> int:
    """Run what there is time for; return 1 if a test fails."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    if not os.environ.get(PRELOAD):
        again = [sys.executable, __file__, *sys.argv[1:]]
        return int(subprocess.run(again, env=checked(), cwd=ROOT).returncode != 0)
    budget = Budget(seconds)
    options = [
        "-q",
        "-x",
        "-k",
        "native or terms or entrywise",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
    ]
    failed = pytest.main(
        [*options, "--hypothesis-profile", "fuzz", str(ROOT / "tests" / "kernels")],
        plugins=[budget],
    )
    print(f"{budget.ran} tests began in {seconds:g} seconds")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
