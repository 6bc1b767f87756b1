"""The rows that weights are learned from, what is known of them, and what a model makes of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import cache as kept
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data.drawn import Draw, Drawn
from breadcrumbs.evaluate.data.task import Rows
from breadcrumbs.evaluate.foundations.foundation import Answering, Batch, on
from breadcrumbs.evaluate.scoring.keys import beside, digest
from breadcrumbs.evaluate.scoring.scoring import check_labels
from breadcrumbs.modules.precise import precise, short_attention
from breadcrumbs.taskfile import view

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.data.task import Task
    from breadcrumbs.evaluate.scoring.scoring import Scorer

#: What is minimised, by what is known of a row. ``hard`` is of the expert's answers, too.
LOSSES = {"none": "entropy", "expert": "kl", "labels": "labels"}


@dataclass(frozen=True)
class Lesson:
    """The rows of one task. head: frozen. expert: the expert's logits (rows, classes), if asked."""

    task: Task
    rows: Drawn
    head: Any
    expert: np.ndarray | None

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.task.name


def lessons(
    scorer: Scorer,
    draw: Draw,
    tasks: Sequence[Task],
    experts: Mapping[str, str],
    cache: Path | None,
) -> list[Lesson]:
    """Return the lessons of tasks, by name, so that their order in a suite does not matter.

    scorer: of the opened suite. experts: by task, the path of the model that answers its rows, if
    answers are asked for; each is in the module once. Afterwards the module holds some model.
    """
    tasks = sorted(tasks, key=lambda task: task.name)
    foundation = scorer.foundation
    for task in tasks:
        if isinstance(foundation, Answering) and foundation.answers(task):
            raise SuiteError(f"task {task.name!r}: is not answered by logits. Leave it out.")
    heads = {task.name: _own(scorer.head(task)) for task in tasks}  # of the base, before all else
    found = []
    for task in tasks:
        rows = draw.rows_of(task)
        rows.need(1, task.name, "learning weights")
        expert = None
        if draw.answers == "expert":
            expert = _answers(scorer, task, rows, experts[task.name], heads[task.name], cache)
        found.append(Lesson(task, rows, heads[task.name], expert))
    return found


def _own(head: Any) -> Any:
    """Return tensors that gradients may go through."""
    if isinstance(head, Mapping):
        return {name: _own(value) for name, value in head.items()}
    return head.clone() if hasattr(head, "clone") else head


def _answers(
    scorer: Scorer, task: Task, rows: Drawn, path: str, head: Any, cache: Path | None
) -> np.ndarray:
    """Return the logits (rows, classes) of a model: from the cache, or computed now."""
    import torch

    keys = scorer.keys
    of = [keys.of(path), keys.base, keys.foundation, keys.precision, keys.head(task.name)]
    key = digest([*of, [one.hex() for one in rows.keys], beside(scorer.suite.base)])
    content = kept.read(cache, "answers", key)
    if content is not None:
        return np.load(io.BytesIO(content), allow_pickle=False)
    with view.open_model(scorer.suite.base, path) as state:
        scorer.slots.put(state)
    order, found = [], []
    with torch.inference_mode(), precise(scorer.precision, scorer.device):
        for batch in scorer.foundation.prepare(task, rows.rows, scorer.batch):
            mine = Batch(on(batch.inputs, scorer.device), batch.rows, batch.labels)
            found.append(scorer.foundation.logits(scorer.module, head, mine).float().cpu().numpy())
            order.append(batch.rows)
    logits = np.empty((len(rows), found[0].shape[1]), np.float32)
    logits[np.concatenate(order)] = np.concatenate(found)
    if not np.isfinite(logits).all():
        raise SuiteError(f"task {task.name!r}: {path}: gives answers that are no numbers.")
    out = io.BytesIO()
    np.save(out, logits)
    kept.write(cache, "answers", key, out.getvalue())
    return logits


def backward(
    scorer: Scorer,
    lesson: Lesson,
    numbers: np.ndarray,
    loss: str,
    head: Any = None,
    temperature: float = 1.0,
) -> float:
    """Add to the gradients what they are of the mean loss of some rows; return that loss.

    numbers: (n,) of the lesson's rows. loss: see `measure`. head: instead of the lesson's.
    """
    import torch

    rows, total = lesson.rows.rows, 0.0
    inputs: Any = rows.inputs
    some = inputs.picked(numbers) if hasattr(inputs, "picked") else [inputs[i] for i in numbers]
    head = lesson.head if head is None else head
    mine = Rows(some, rows.labels[numbers], rows.digest)
    for batch in scorer.foundation.prepare(lesson.task, mine, scorer.batch):
        where, labels = numbers[batch.rows], np.asarray(batch.labels)
        with torch.enable_grad():
            with precise(scorer.precision, scorer.device), short_attention(scorer.device):
                logits = scorer.foundation.logits(scorer.module, head, on(batch, scorer.device))
            if loss == "labels":
                check_labels(lesson.task, "validation", labels, batch.rows, logits.shape[-1])
            expert = None if lesson.expert is None else torch.from_numpy(lesson.expert[where])
            value = measure(loss, logits.float(), expert, torch.from_numpy(labels), temperature)
            value = value * (len(where) / len(numbers))
        value.backward()
        total += float(value.detach())
    return total


def measure(
    loss: str,
    logits: torch.Tensor,
    expert: torch.Tensor | None,
    labels: torch.Tensor,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Return the mean loss of rows from logits (rows, classes).

    ``entropy``: that of softmax(logits / temperature). ``kl``: KL(softmax(expert's) | softmax).
    ``hard``: cross-entropy of what the expert answers. ``labels``: cross-entropy of labels.
    """
    from torch.nn import functional

    logits = logits / temperature
    if loss == "entropy":
        logs = logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1).mean()
    if loss == "labels":
        return functional.cross_entropy(logits, labels.to(logits.device))
    assert expert is not None
    expert = expert.to(logits.device) / temperature
    if loss == "hard":
        return functional.cross_entropy(logits, expert.argmax(-1))
    given, wanted = logits.log_softmax(-1), expert.log_softmax(-1)
    return functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
