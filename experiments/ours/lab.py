"""A family in memory: task vectors by tensor, and scores of a step on validation or test rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments.paper.family import fewer

from breadcrumbs import checkpoint
from breadcrumbs.checkpoint import cache
from breadcrumbs.checkpoint.tables import is_table
from breadcrumbs.evaluate import suite as suites
from breadcrumbs.evaluate.data.task import Split
from breadcrumbs.evaluate.scoring.scoring import Scorer

Step = dict[str, np.ndarray]


class Lab:
    """Task vectors of the first ``count`` tasks of a suite, in float32, and a scorer of steps."""

    def __init__(self, suite: str | Path, count: int | None = None, rows: int | None = None):
        self.suite = suites.load(suite)
        if rows:  # beside the models, as the suite that it is made of
            folder = Path(tempfile.mkdtemp())
            self.suite = suites.load(fewer(self.suite, rows, folder))
        self.tasks = self.suite.tasks[:count]
        self.names = [task.name for task in self.tasks]
        self.scorer = Scorer(self.suite, cache=cache.folder())
        self.base = {
            name: np.asarray(value, np.float32)
            for name, value in self.scorer.base.items()
            if np.asarray(value).dtype.kind == "f"
        }
        self.taus: dict[str, np.ndarray] = {}
        for number, task in enumerate(self.tasks):
            with checkpoint.open(task.finetuned) as model:
                for name, base in self.base.items():
                    if name not in model:
                        continue
                    tau = np.asarray(model[name], np.float32) - base
                    if tau.any():
                        found = self.taus.setdefault(
                            name, np.zeros((len(self.tasks), *base.shape), np.float32)
                        )
                        found[number] = tau
        self.matrices = [n for n, t in self.taus.items() if t.ndim == 3 and not is_table(n)]
        self.rest = [name for name in self.taus if name not in self.matrices]
        self._own: dict[tuple[str, str], float] = {}
        self._number = 0

    def length(self, who: Sequence[int], names: Sequence[str]) -> float:
        """Return the mean length of some task vectors in some tensors."""
        squares = sum(
            np.einsum("ti,ti->t", t, t, dtype=np.float64)
            for t in (self.taus[name][who].reshape(len(who), -1) for name in names)
        )
        return float(np.mean(np.sqrt(squares)))

    def score(
        self, step: Mapping[str, np.ndarray], who: Sequence[int], split: Split = "validation"
    ) -> list[float]:
        """Return the accuracy of base + step on some tasks, divided by the fine-tuned models'."""
        state: dict[str, Any] = dict(self.scorer.base)
        for name, value in step.items():
            state[name] = self.base[name] + value.astype(np.float32)
        self._number += 1
        key = f"trial {self._number}"
        found = [self.scorer.score(self.tasks[t], split, state, key).value for t in who]
        return [value / self.own(t, split) for t, value in zip(who, found, strict=True)]

    def own(self, number: int, split: Split) -> float:
        """Return what a fine-tuned model scores on its own task."""
        task = self.tasks[number]
        if (task.name, split) not in self._own:
            with checkpoint.open(task.finetuned) as model:
                state = dict(model)
                value = self.scorer.score(task, split, state, f"own {task.name}").value
            self._own[task.name, split] = value
        return self._own[task.name, split]


def merged(
    lab: Lab, who: Sequence[int], candidate: Callable[[np.ndarray], np.ndarray]
) -> tuple[Step, float]:
    """Return the step of a candidate in the matrices, and the seconds that it took."""
    began = time.perf_counter()
    step = {name: candidate(lab.taus[name][who[0] : who[-1] + 1]) for name in lab.matrices}
    return step, time.perf_counter() - began
