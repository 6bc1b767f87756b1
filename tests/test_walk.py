"""A merge goes down through the modules: nothing in it calls what waits for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Who takes merged values is handed down to the engine, which knows no files.
OUTPUTS = {"engine.consumers -> merging.files: 1", "engine.consumers -> merging.calibration: 1"}


@pytest.mark.parametrize("method", ["breadcrumbs", "ties", "della", "nuslerp", "breadcrumbs_ties"])
def test_no_call_comes_back_up(method: str):
    command = [sys.executable, "-m", "benchmarks.walk", "-m", method]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "returns in the merge of a segment: 0\n" in text
    _, _, rest = text.partition("calls to a higher floor in the merge of a segment: ")
    upward, _, _ = rest.partition("calls to a higher floor in all")
    assert set(map(str.strip, upward.splitlines()[1:])) <= OUTPUTS
