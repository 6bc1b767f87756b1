"""A small family whose foundation does what files beside it say: dies, waits, counts.

kill            the next process that scores dies, once
count           how often a model is asked is noted
wait at N       whoever is asked the Nth time from then on waits
kill at N       the next process that trains dies after N steps, once
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import letters

from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.finetuning import finetuning
from breadcrumbs.evaluate.scoring import scores
from breadcrumbs.evaluate.scoring.settings import Settings
from breadcrumbs.plan.recipe import Model, Recipe, to_yaml

TOLD = """
import os, signal, time
from pathlib import Path

HERE = Path(__file__).parent

def taken(name):
    try:
        (HERE / name).unlink()
    except FileNotFoundError:
        return False
    return True

class Told(Letters):
    steps = 0

    def logits(self, module, head, batch):
        if taken("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if (HERE / "count").exists():
            with open(HERE / "asked", "a") as file:
                file.write(".")
            for path in HERE.glob("wait at *"):
                if (HERE / "asked").stat().st_size == int(path.name[8:]):
                    (HERE / "waits").touch()
                    while path.exists():
                        time.sleep(0.02)
        return super().logits(module, head, batch)

    def loss(self, module, head, batch):
        self.steps += 1
        for path in HERE.glob("kill at *"):
            if self.steps == int(path.name.split()[2]) and taken(path.name):
                os.kill(os.getpid(), signal.SIGKILL)
        return Letters.loss(self, module, head, batch)

FOUNDATION = Told()
"""


class Work:
    """A suite of two tasks with their models, and a recipe of these."""

    def __init__(self, folder: Path):
        self.folder = letters.family(folder, ("first", "second"))
        (folder / "letters.py").write_text(letters.FOUNDATION + TOLD)
        self.suite = suites.load(folder / "suite.yaml")
        models = tuple(Model(str(folder / f"{n}.safetensors"), name=n) for n in ("first", "second"))
        base = str(folder / "base.safetensors")
        self.made = Recipe(base, models, "task_arithmetic", {"alpha": 0.5})
        self.recipe = str(folder / "recipe.yaml")
        Path(self.recipe).write_text(to_yaml(self.made))

    def settings(self, folder: Path, **more: Any) -> Settings:
        given = {"results": str(folder / "r.sqlite"), "cache": folder / "cache"}
        return Settings(**{**given, "precision": "float32", **more})

    def tell(self, what: str) -> None:
        (self.folder / what).touch()

    def untell(self, what: str) -> None:
        (self.folder / what).unlink()

    def counted(self) -> int:
        """How often models were asked while that was counted."""
        return (self.folder / "asked").stat().st_size

    def until(self, there: Callable[[], bool]) -> None:
        last = time.monotonic() + 60
        while not there():
            assert time.monotonic() < last, "nothing came"
            time.sleep(0.02)


def scored(work: Work, folder: Path, **settings: Any) -> list[tuple[Any, ...]]:
    """Return all that rows of the family say but for times."""
    folder.mkdir()
    rows = scores.of(work.suite, [work.made], work.settings(folder, **settings))
    return [(row.key, row.label, row.value, row.hits, row.recipe_hash) for row in rows]


def finetuned(work: Work, folder: Path, **more: Any) -> None:
    """Fine-tune on the first task in two short epochs."""
    settings = finetuning.Settings(epochs=2, precision="float32")
    finetuning.run(work.suite, folder, settings, tasks=["first"], **more)
