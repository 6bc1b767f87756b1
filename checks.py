"""All checks in one command: `python -m checks`."""

from __future__ import annotations

import subprocess
import sys

CHECKS = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["pyright", "--pythonpath", sys.executable],
    [sys.executable, "-m", "docs.generate", "--check"],
    [sys.executable, "-m", "pytest", "-n", "2"],
)


def main() -> int:
    """Run every check; return 1 if one fails."""
    failed = []
    for command in CHECKS:
        print("+", " ".join(command), flush=True)
        if subprocess.run(command).returncode:
            failed.append(" ".join(command))
    for command in failed:
        print("failed:", command)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
