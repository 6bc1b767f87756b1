"""All checks in one command: `python -m checks`; `--quick`: those that take two minutes."""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

STYLE = (["ruff", "check", "."], ["ruff", "format", "--check", "."])
TYPES = ["pyright", "--pythonpath", sys.executable]
KERNELS = [sys.executable, "-m", "breadcrumbs.kernels.native.build"]
#: A worker goes on with the tests that follow, of which many share what is made for a file.
TESTS = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-m", "not ray"]
#: Of the tests on a cluster of Ray those that say most in 40 seconds; they share one cluster.
RAY = [sys.executable, "-m", "pytest", "-n", "0", "-m", "ray and shortlist"]
RAY += ["tests/merging/test_on_ray.py", "tests/evaluate/test_work_on_ray.py"]
FUZZ = [sys.executable, "fuzz/kernels.py", "60"]
DOCS = ([sys.executable, "-m", "docs.generate", "--check"], [sys.executable, "-m", "docs.site"])
ALL = (*STYLE, TYPES, KERNELS, *DOCS, TESTS, *([RAY] if find_spec("ray") else []), FUZZ)

#: What pyright looks at, as in pyproject.toml.
TYPED = ("src/", "benchmarks/", "docs/", "experiments/", "checks.py", "tests/typed_calls.py")
#: The bits of results, who may import whom, what every method keeps to, and a file a package.
FAST = (
    "tests/bits",
    "tests/test_architecture.py",
    "tests/test_errors_of_others.py",
    "tests/archives/test_archive_files.py",
    "tests/checkpoint/test_safetensors.py",
    "tests/cli/test_cli.py",
    "tests/demo",
    "tests/engine/test_outputs_contract.py",
    "tests/evaluate/test_metrics.py",
    "tests/evaluate/test_tables.py",
    "tests/kernels/test_terms.py",
    "tests/merging/test_task_vector.py",
    "tests/methods/test_contract.py",
    "tests/modules/test_weights.py",
    "tests/plan/test_plan.py",
    "tests/plan/test_recipe.py",
    "tests/store/test_store_altered.py",
    "tests/taskfile/test_task_file_broken.py",
    "tests/tasks/test_task_exchange.py",
    "tests/tune/test_soup.py",
)


def changed() -> list[str]:
    """Return the typed files that differ from the branch `main`, those not yet added too."""
    found: set[str] = set()
    for command in (
        ["git", "diff", "--name-only", "--diff-filter=d", "--merge-base", "main"],
        ["git", "ls-files", "--others", "--exclude-standard"],
    ):
        said = subprocess.run(command, capture_output=True, text=True)
        found |= set(said.stdout.splitlines())
    mine = (path for path in found if path.startswith(TYPED) and path.endswith(".py"))
    return sorted(path for path in mine if Path(path).exists())


def quick() -> list[list[str]]:
    """Return the checks that take two minutes of two cores: one example of each drawn test."""
    files = changed()
    types = [[*TYPES, *files]] if files else []
    return [*STYLE, *types, KERNELS, [*TESTS, "--hypothesis-profile", "quick", *FAST]]


def main() -> int:
    """Run the checks; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m checks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="those that take two minutes")
    failed = []
    for command in quick() if parser.parse_args().quick else ALL:
        print("+", textwrap.shorten(" ".join(command), 200), flush=True)
        if subprocess.run(command).returncode:
            failed.append(textwrap.shorten(" ".join(command), 200))
    for command in failed:
        print("failed:", command)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
