"""Scores of models on tasks, in one process: weights in, answers counted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs import checkpoint
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data import metrics
from breadcrumbs.evaluate.data.task import Rows, Split, Task
from breadcrumbs.evaluate.foundations.foundation import Answering, Batch, Featured, on
from breadcrumbs.evaluate.routing.router import Router
from breadcrumbs.evaluate.scoring import heads, routed
from breadcrumbs.evaluate.scoring.keys import Keys
from breadcrumbs.modules import devices, stack
from breadcrumbs.modules.precise import precise

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.corrections.heads import Heads
    from breadcrumbs.evaluate.suite import Suite
    from breadcrumbs.modules.stack import Stack

#: Rows in a batch, on the CPU and elsewhere.
BATCH, LARGE_BATCH = 32, 256
#: Bytes of batches that a process keeps for the next model.
KEPT = 2 << 30


@dataclass(frozen=True)
class Score:
    """What a model scores on one split of one task.

    value: of the metric, with its standard error. hits: (items,) which answers are right.
    """

    task: str
    split: str
    metric: str
    value: float
    stderr: float
    hits: np.ndarray
    seconds: float

    @property
    def correct(self) -> int:
        """The number of right answers."""
        return int(np.count_nonzero(self.hits))

    @property
    def items(self) -> int:
        """The number of rows."""
        return len(self.hits)


class Scorer:
    """Scores weights on the tasks of a suite.

    Holds one module, which weights are put into, and of each task the head and the batches, which
    are made once, as long as they are no more than ``kept`` bytes. cache: a folder of heads, made
    of the base, that processes share. train: keep weights in float32, as steps need them.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        device: str = "cpu",
        precision: str = "auto",
        cache: Path | None,
        kept: int = KEPT,
        train: bool = False,
    ):
        from breadcrumbs.modules.slots import Slots

        self.suite, self.foundation = suite, suite.foundation
        self.device = devices.device(device)
        self.batch = BATCH if self.device.type == "cpu" else LARGE_BATCH
        self.precision = devices.precision(precision, self.device)
        self.cache, self.kept = cache, kept
        self.base: Mapping[str, Any] = checkpoint.open(suite.base)
        self.keys = Keys(suite, self.precision)
        module = self.foundation.load(suite.base)
        wide = train or self.precision == "float32"
        self.module = (module.float() if wide else module).to(self.device)
        self.slots = Slots(self.module, self.base)
        #: The hash of the weights in the module.
        self._holds = self.keys.base
        self._heads: dict[str, Any] = {}
        self._batches: dict[tuple[str, str], Sequence[Batch]] = {}
        self._stack: Stack | None = None
        #: Features of the weights in the module, of batches by number: of all that corrects them.
        self._features: dict[tuple[str, str, int], Any] = {}

    def head(self, task: Task) -> Any:
        """Return the frozen head of a task: from the cache, or made of the base now."""
        import torch

        if task.name not in self._heads:
            key = self.keys.head(task.name)
            found = heads.read(self.cache, key)
            if found is None:
                self.put(self.base, self.keys.base)
                with torch.inference_mode(), precise(self.precision, self.device):
                    found = self.foundation.head(self.module, task)
                heads.write(self.cache, key, found)
            self._heads[task.name] = on(found, self.device)
        return self._heads[task.name]

    def features(self, task: Task, rows: Rows, state: Mapping[str, Any], hash_: str) -> np.ndarray:
        """Return the features (rows, width) of rows, float32, that weights give."""
        import torch

        made = featured(self.foundation)
        self.put(state, hash_)
        found: list[tuple[np.ndarray, np.ndarray]] = []
        with torch.inference_mode(), precise(self.precision, self.device):
            for batch in self.foundation.prepare(task, rows, self.batch):
                mine = Batch(on(batch.inputs, self.device), batch.rows, batch.labels)
                found.append((batch.rows, made.features(self.module, mine).float().cpu().numpy()))
        order = np.concatenate([rows for rows, _ in found])
        features = np.concatenate([some for _, some in found])
        whole = np.empty_like(features)
        whole[order] = features
        return whole

    def score(
        self,
        task: Task,
        split: Split,
        state: Mapping[str, Any],
        hash_: str,
        corrections: Heads | Router | None = None,
    ) -> Score:
        """Return the score of weights, corrected or routed if told.

        hash_: of the weights, which tells whether they are in already.
        """
        import torch

        began = time.perf_counter()
        if corrections is not None:
            featured(self.foundation)
        if isinstance(self.foundation, Answering) and self.foundation.answers(task):
            self.put(state, hash_)
            with torch.inference_mode(), precise(self.precision, self.device):
                hits = self.foundation.hits(self.module, task, split, self.batch)
            value, stderr = metrics.measured("accuracy", hits, np.ones_like(hits))
        else:
            head = self.head(task)
            self.put(state, hash_)
            if isinstance(corrections, Router):
                batches = self._prepared(task, split)
                for one in batches:
                    check_labels(task, split, np.asarray(one.labels), one.rows, len(task.labels))
                made = featured(self.foundation)
                given, truth = routed.answers(self, made, task, batches, state, hash_, corrections)
            else:
                given, truth = self._answers(task, split, head, corrections)
            value, stderr = metrics.measured(task.metric, given, truth)
            hits = given == truth
        seconds = time.perf_counter() - began
        return Score(task.name, split, task.metric, value, stderr, hits, seconds)

    def _answers(
        self, task: Task, split: Split, head: Any, corrections: Heads | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the classes that the model answers, and the right ones, in the order of rows.

        Where logits are not numbers the answer is a wrong one.
        """
        import torch

        batches = self._prepared(task, split)
        answers, labels = [], []
        with torch.inference_mode(), precise(self.precision, self.device):
            for number, batch in enumerate(batches):
                inputs = on(batch.inputs, self.device)
                mine = Batch(inputs, batch.rows, batch.labels)
                if corrections is None:
                    found = self.foundation.logits(self.module, head, mine)
                elif corrections.is_inside:
                    found = self._inside(task, head, mine, corrections)
                else:
                    features = self._featured(task, split, number, mine)
                    found = corrections.logits(self.foundation, head, features, task.name)
                truth = np.asarray(batch.labels)
                check_labels(task, split, truth, batch.rows, found.shape[-1])
                wrong = (truth + 1) % found.shape[-1]
                odd = found.isnan().any(dim=-1).cpu().numpy()
                answers.append(np.where(odd, wrong, found.argmax(dim=-1).cpu().numpy()))
                labels.append(truth)
        order = np.concatenate([batch.rows for batch in batches])
        given, truth = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        given[order], truth[order] = np.concatenate(answers), np.concatenate(labels)
        return given, truth

    def _featured(self, task: Task, split: Split, number: int, batch: Batch) -> torch.Tensor:
        """Return the features of a batch, computed once for all corrections behind a model."""
        key = task.name, split, number
        if key not in self._features:
            self._features[key] = featured(self.foundation).features(self.module, batch)
        return self._features[key]

    def _inside(self, task: Task, head: Any, batch: Batch, corrections: Heads) -> torch.Tensor:
        """Return logits where the blocks of the module are corrected too."""

        def features() -> torch.Tensor:
            return featured(self.foundation).features(self.module, batch)

        if self._stack is None:
            says = getattr(self.foundation, "blocks", None)
            given = None if says is None else says(self.module)
            self._stack = stack.find(self.module, features, self.foundation.kind, given)
        with corrections.within(self._stack, task.name, self.device):
            made = features()
        return corrections.logits(self.foundation, head, made, task.name, within=True)

    def put(self, state: Mapping[str, Any], hash_: str) -> None:
        """Put weights into the module, unless they are in. hash_: theirs."""
        if hash_ != self._holds:
            self._holds = ""
            self._features.clear()
            self.slots.put(state)
            self._holds = hash_

    def _prepared(self, task: Task, split: Split) -> Sequence[Batch]:
        key = (task.name, split)
        made = self._batches.pop(key, None)
        if made is None:
            made = self.foundation.prepare(task, task.rows(split), self.batch)
            held = _nbytes(made)
            while self._batches and held + sum(map(_nbytes, self._batches.values())) > self.kept:
                del self._batches[next(iter(self._batches))]  # the one not used for longest
        self._batches[key] = made
        return made


def featured(foundation: Any) -> Featured:
    """Return the foundation; SuiteError unless corrections have a place in it."""
    if not isinstance(foundation, Featured):
        raise SuiteError(
            f"foundation {foundation.kind}: has no features(module, batch) and answer(head,"
            " features), between which corrections go. Foundations sentence and clip have."
        )
    return foundation


def check_labels(
    task: Task, split: Split, labels: np.ndarray, rows: np.ndarray, classes: int
) -> None:
    """Raise SuiteError for labels that the head has no class for. rows: their numbers."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise SuiteError(
            f"task {task.name!r}: {split} row {rows[wrong[0]]} has label {labels[wrong[0]]}, and"
            f" the head has {classes} classes, from 0 on. Correct the labels of the task."
        )


def _nbytes(batches: Sequence[Batch]) -> int:
    tensors = (tensor for batch in batches for tensor in batch.inputs.values())
    return sum(getattr(tensor, "nbytes", 0) for tensor in tensors)
