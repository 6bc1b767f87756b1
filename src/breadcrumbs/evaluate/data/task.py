"""A task: rows of inputs and labels in three splits, of which a search never sees the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from breadcrumbs.errors import SplitError

#: Those of a source, and the validation rows that a search scores first.
Split = Literal["train", "validation", "test", "anchors"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


#: What the source of a task begins with that lm-eval has.
LM_EVAL = "lm-eval:"


@dataclass(frozen=True)
class Rows:
    """Rows of one split of a task.

    inputs: a text, a pair of texts, or a picture (PIL, RGB, decoded when it is asked for) each.
    labels: ``(n,)`` int64, numbers of classes. digest: BLAKE3 of all inputs and labels, in
    hexadecimal. notes: a line each on what was left out of the source.
    """

    inputs: Sequence[Any]
    labels: np.ndarray
    digest: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class Task:
    """A classification task.

    labels: the names of the classes, by number, read at first use. read: split -> its rows.
    metric: what is reported: ``accuracy``, ``matthews``, ``f1``, or what lm-eval counts. head:
    settings of the foundation's head, such as ``templates`` of a zero-shot head or ``words`` of a
    text-to-text one.
    finetuned: the path or hub id of the model that was fine-tuned on it, if there is one, which
    accuracies are normalised by.
    """

    name: str
    labels: Sequence[str]
    read: Callable[[Split], Rows]
    metric: str = "accuracy"
    head: Mapping[str, Any] = field(default_factory=dict)
    finetuned: str | None = None
    #: The splits that may be read.
    open: tuple[Split, ...] = SPLITS

    def rows(self, split: Split) -> Rows:
        """Return the rows of a split; SplitError for test rows of a task that is being tuned."""
        if split not in self.open:
            raise SplitError(
                f"task {self.name!r}: {split} rows were asked for where only"
                f" {' and '.join(self.open)} rows may be seen. Choose parameters on validation"
                " rows, and score the chosen ones on test rows once."
            )
        return self.read(split)

    def tuning(self) -> Task:
        """Return the task without its test rows, for all that chooses or trains."""
        return replace(self, open=("train", "validation"))
