"""The store in processes that are killed, and in several at once."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from families import checkpoints

from breadcrumbs.store import Store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


def run(*arguments: object) -> str:
    script = Path(__file__).parents[1] / "store_killing.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("change", "points"),
    [
        ("add", (150, 508, 529, 534, 700)),
        ("remove", (90, 155, 500)),
        ("set", (90, 160, 600)),
        ("replace", (513, 532, 700)),
        ("revert", (373, 377, 900)),
        ("gc", (1040, 1072, 1186)),
    ],
)
def test_killed_at_any_line(tmp_path: Path, change: str, points: tuple[int, ...]) -> None:
    base, *models = checkpoints(tmp_path, models=3)
    with Store.create(tmp_path / "store", base) as store:
        store.add("t1", models[0])
        store.add("t2", models[1], weight=0.5)
        if change == "gc":
            store.add("t3", models[2])
            store.remove("t3")
    numbers = ",".join(map(str, points))
    told = ast.literal_eval(run("kill", tmp_path, base, models[2], change, numbers))
    assert told["killed"] == len(points) and told["before"] and told["after"], told


def test_killed_while_grams_are_brought_up(tmp_path: Path) -> None:
    base, *models = checkpoints(tmp_path, models=3)
    with Store.create(tmp_path / "store", base, method="wudi") as store:
        store.add("t1", models[0])
        store.keep_grams()
        store.add("t2", models[1], weight=0.5)
    told = ast.literal_eval(run("kill", tmp_path, base, models[2], "add", "1500"))
    assert told["killed"] == told["after"] == 1, told


@pytest.mark.parametrize("method", ["breadcrumbs", "wudi"])
def test_three_at_once(tmp_path: Path, method: str) -> None:
    base, *models = checkpoints(tmp_path, models=3)
    run("race", tmp_path, base, *models, method)
