"""Answers of rows whose task is not told: a router sends each to a task, whose model answers it.

Each row is routed and answered for itself. Rows stay in the batches that they were prepared in, of
which those that go to one task are taken out, so no row sees more of the others than ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from breadcrumbs.checkpoint.hashing import model_hash
from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.foundations.foundation import Batch, Featured, on
from breadcrumbs.evaluate.routing import experts
from breadcrumbs.modules.precise import precise

if TYPE_CHECKING:
    import torch

    from breadcrumbs.evaluate.data.task import Task
    from breadcrumbs.evaluate.routing.router import Router
    from breadcrumbs.evaluate.suite import Suite


class Holder(Protocol):
    """What holds the module: `scoring.Scorer`."""

    suite: Suite
    module: torch.nn.Module
    device: torch.device
    precision: str

    def head(self, task: Task) -> Any:
        """Return the frozen head of a task."""
        ...

    def put(self, state: Mapping[str, Any], hash_: str) -> None:
        """Put weights into the module, unless they are in."""
        ...


def answers(
    held: Holder,
    foundation: Featured,
    task: Task,
    batches: Sequence[Batch],
    state: Mapping[str, Any],
    hash_: str,
    router: Router,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes (rows,) that are answered, and the right ones, in the order of rows.

    batches: of rows of the task. state, hash_: the merged model. An answer of a class that the task
    has none of the name of is a wrong one.
    """
    import torch

    heads = {name: held.head(held.suite.task(name)) for name in (*router.tasks, task.name)}
    held.put(state, hash_)
    batches = [Batch(on(b.inputs, held.device), b.rows, b.labels) for b in batches]
    with torch.inference_mode(), precise(held.precision, held.device):
        features = [foundation.features(held.module, batch) for batch in batches]
    chosen = [router.choose(one) for one in features]
    given = [np.full(len(one), -1, np.int64) for one in chosen]
    for number, name in enumerate(router.tasks):
        if not any((one == number).any() for one in chosen):
            continue
        own = task if router.head_given else held.suite.task(name)
        head, classes = heads[own.name], _classes(own, task)
        if router.heads is None:
            _put(held, router, name, state, hash_)
        elif own.name == name:
            head = router.heads.head(name, head, held.device)
        with torch.inference_mode(), precise(held.precision, held.device):
            for batch, found, mine, out in zip(batches, features, chosen, given, strict=True):
                at = np.flatnonzero(mine == number)
                if not at.size:
                    continue
                if router.heads is None:
                    z = foundation.features(held.module, _taken(batch, torch.from_numpy(at)))
                else:
                    z = router.heads.features(name, found[torch.from_numpy(at).to(found.device)])
                logits = foundation.answer(head, z)
                odd = logits.isnan().any(dim=-1).cpu().numpy()
                out[at] = np.where(odd, -1, classes[logits.argmax(dim=-1).cpu().numpy()])
    order = np.concatenate([batch.rows for batch in batches])
    labels = np.concatenate([np.asarray(batch.labels) for batch in batches])
    found = np.concatenate(given)
    placed, truth = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    placed[order], truth[order] = np.where(found < 0, _wrong(labels, task), found), labels
    return placed, truth


def _wrong(labels: np.ndarray, task: Task) -> np.ndarray:
    return (labels + 1) % max(len(task.labels), 2)


def _classes(answering: Task, asked: Task) -> np.ndarray:
    """Return the number in the task that is asked of each class of the one that answers, or -1."""
    if answering.name == asked.name:
        return np.arange(len(asked.labels))
    numbers = {label: number for number, label in enumerate(asked.labels)}
    return np.array([numbers.get(label, -1) for label in answering.labels], np.int64)


def _put(held: Holder, router: Router, name: str, state: Mapping[str, Any], hash_: str) -> None:
    """Put the expert of a task into the module; SuiteError where it is another one by now."""
    path = router.paths[name]
    wanted = {one["name"]: one["expert"] for one in router.about["tasks"]}[name]
    with experts.opened(path, held.suite.base, state, hash_) as model:
        found = model_hash(model)
        if found != wanted:
            raise SuiteError(
                f"{router.path}: sends rows of {name!r} to model {wanted[:8]}, and {path} is"
                f" {found[:8]}. Learn the router again."
            )
        held.put(model, found)


def _taken(batch: Batch, rows: torch.Tensor) -> Batch:
    """Return some rows of a batch, padded as it is."""
    inputs = {name: tensor[rows.to(tensor.device)] for name, tensor in batch.inputs.items()}
    return Batch(inputs, batch.rows[rows.numpy()], batch.labels[rows])
