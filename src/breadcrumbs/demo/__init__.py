"""The demo: a small family of real models, merged with what methods choose, and measured.

`run` merges the family into one model in four ways, packs it into one file in a fifth, and measures
each on test images: nothing is searched. `curves` is how the first two fall as alpha grows.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breadcrumbs import archives, checkpoint
from breadcrumbs.demo.model import Split, accuracy, load_family
from breadcrumbs.errors import OutputError
from breadcrumbs.machine import available_cores
from breadcrumbs.merging import api
from breadcrumbs.methods.registry import METHODS

#: What each task asks.
ASKED = {
    "animals": "which of 10 animals a silhouette shows",
    "digits": "which of 10 digits is written by hand",
    "fashion": "which of 10 articles of clothing is shown",
    "turns": "by how many quarters clothing is turned, 0 to 3",
    "vowels": "which of 7 vowels an Ethiopic syllable has (its consonant is new)",
    "weights": "which of 5 stroke weights, Thin to Black, a letter has (it is new)",
}
#: One model of all, each as it comes. The last is the best of the spectral methods here.
ONE_MODEL = ("average", "task_arithmetic", "breadcrumbs", "tsv_m")
#: Merged at each of these besides, and measured on so many validation images of a task.
SWEPT = ("task_arithmetic", "breadcrumbs")
ALPHAS = (0.3, 0.6, 1.0, 1.5)
SWEPT_ON = 60


@dataclass
class Row:
    """One line of the table. accuracy: by task, on test images. mean and normalised: over tasks.

    normalised is the mean of the ratios to the fine-tuned models' accuracies. alpha: how far the
    method steps, as published or chosen automatically. size: bytes of what is kept, the base apart.
    """

    name: str
    accuracy: dict[str, float]
    mean: float
    normalised: float
    size: int
    alpha: float | None = None


@dataclass
class Result:
    """The rows of the table; by method and alpha, mean accuracies on validation images.

    tasks: what each asks. images: tested on, of all tasks; swept_images: of `curves`. error: the
    largest standard error of the mean of what was merged. base_size: bytes of the base.
    """

    tasks: dict[str, str]
    rows: list[Row]
    curves: dict[str, dict[float, float]]
    images: int
    swept_images: int
    error: float
    base_size: int
    seconds: float

    def to_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**self.__dict__, "rows": [row.__dict__ for row in self.rows]}


def run(step: Callable[[str], None] = lambda what: None) -> Result:
    """Merge the family and return what came out. step: called with what is being done."""
    began = time.perf_counter()
    family = load_family()
    base, tasks = str(family.base), list(family.tasks)
    models = {task: str(path) for task, path in family.finetuned.items()}

    def scores(weights: Mapping[str, Mapping[str, Any]], *of: Any) -> dict[str, float]:
        """Return the accuracy of the weights of each task on it."""
        with ThreadPoolExecutor(available_cores()) as pool:
            found = pool.map(lambda task: accuracy(weights[task], task, *of), tasks)
            return dict(zip(tasks, found, strict=True))

    def of_one(weights: Mapping[str, Any], split: Split = "test", most: int | None = None) -> dict:
        return scores(dict.fromkeys(tasks, weights), split, most)

    def row(name: str, got: dict[str, float], size: int, alpha: float | None = None) -> Row:
        whole = own or got
        normalised = _mean(got[task] / whole[task] for task in tasks)
        return Row(name, got, _mean(got.values()), normalised, size, alpha)

    own: dict[str, float] = {}
    step("measuring the fine-tuned models")
    own = scores({task: dict(checkpoint.open(path)) for task, path in models.items()})
    sizes = [os.path.getsize(path) for path in models.values()]
    step("measuring the base")
    rows = [
        row("base", of_one(dict(checkpoint.open(base))), 0),
        row("fine-tuned", own, sum(sizes)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for method in ONE_MODEL:
            step(f"merging by {method}")
            path = Path(folder) / f"{method}.safetensors"
            made = api.merge(base, list(models.values()), method=method, output=path, sync=False)
            with checkpoint.open(path) as merged:
                got = of_one(dict(merged))
            rows.append(row(method, got, path.stat().st_size, made.alpha or _published(method)))
        step("packing all tasks into one file")
        path = Path(folder) / "tasks.safetensors"
        archives.compress(base, list(models.values()), path, names=tasks, sync=False)
        unpacked = {task: _extracted(path, task, base) for task in tasks}
        rows.append(row("compress", scores(unpacked), path.stat().st_size))
    curves: dict[str, dict[float, float]] = {method: {} for method in SWEPT}
    for method, alpha in ((method, alpha) for method in SWEPT for alpha in ALPHAS):
        step(f"{method} with alpha {alpha}")
        merged = api.merge(base, list(models.values()), method=method, alpha=alpha)
        curves[method][alpha] = _mean(of_one(merged, "validation", SWEPT_ON).values())
    images = [len(task.test.labels) for task in family.tasks.values()]
    return Result(
        {task: ASKED[task] for task in tasks},
        rows,
        curves,
        sum(images),
        SWEPT_ON * len(tasks),
        max(_error(row.accuracy.values(), images) for row in rows[2:]),
        os.path.getsize(base),
        time.perf_counter() - began,
    )


def write(folder: str | os.PathLike[str]) -> list[Path]:
    """Write base and fine-tunings as models into a folder; return theirs. OutputError if it is.

    A model is a folder with `model.safetensors`, as from a hub.
    """
    family, home = load_family(), Path(folder)
    if home.exists():
        raise OutputError(f"{home} exists. Give a folder that does not.")
    made = []
    for name, path in {"base": family.base, **family.finetuned}.items():
        (home / name).mkdir(parents=True)
        (home / name / "model.safetensors").write_bytes(path.read_bytes())
        made.append(home / name)
    return made


def _extracted(archive: Path, task: str, base: str) -> dict[str, Any]:
    with archives.model(archive, task, base) as model:
        return dict(model)


def _published(method: str) -> float | None:
    alpha = METHODS[method].complete({}).get("alpha")
    return alpha if isinstance(alpha, float) else None


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def _error(fractions: Iterable[float], counts: Iterable[int]) -> float:
    """Return the standard error of the mean of fractions, each of so many images."""
    squares = [p * (1 - p) / count for p, count in zip(fractions, counts, strict=True)]
    return math.sqrt(sum(squares)) / len(squares)
