"""What learning may see of a suite: so many rows of one split, and what is known of them.

The only door to data for all that learns besides fine-tuning. Rows are drawn by a hash of seed,
task and input, so they depend on no order, fewer are among more, and a run that begins again draws
the same. Labels are there only where they are asked for; test inputs only under that name, and
never with labels.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import SplitError, counted
from breadcrumbs.evaluate.data.inputs import Inputs, key
from breadcrumbs.evaluate.data.task import Rows, Split, Task

if TYPE_CHECKING:
    from breadcrumbs.evaluate.suite import Suite

LearnedSplit = Literal["train", "validation", "test-inputs"]
Answers = Literal["none", "expert", "labels"]
#: A label that is not there.
ABSENT = -1


@dataclass(frozen=True)
class Draw:
    """What is drawn of each task. rows: at most; None is all.

    answers: what is known of a row besides its input: nothing, what the model that was fine-tuned
    on the task (the expert) answers, or its label. SplitError for what there is not.
    """

    split: LearnedSplit = "validation"
    rows: int | None = None
    answers: Answers = "expert"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kinds in (("split", LearnedSplit), ("answers", Answers)):
            if getattr(self, name) not in get_args(kinds):
                raise SplitError(
                    f"{name}: {getattr(self, name)!r} is not possible. Give one of"
                    f" {', '.join(get_args(kinds))}."
                )
        if self.rows is not None and self.rows < 1:
            raise SplitError(f"rows: {self.rows} is not possible. Give 1 or more.")
        if self.split == "test-inputs" and self.answers == "labels":
            raise SplitError("test inputs come without labels. Learn labels from validation rows.")

    @property
    def of(self) -> Split:
        """The split of the suite that rows are drawn from."""
        return "test" if self.split == "test-inputs" else self.split

    def opened(self, suite: Suite) -> Suite:
        """Return the suite with this split open, without the labels that may not be seen.

        Training rows are open too, whole, since frozen heads may be made of them. Nothing that was
        read is kept, so that no label of another row stays in memory.
        """
        return replace(suite, tasks=tuple(map(self._opened, suite.tasks)))

    def _opened(self, task: Task) -> Task:
        labels = tuple(_fresh(task).labels)
        return replace(
            task,
            labels=labels,
            read=_Read(task.read, None if self.answers == "labels" else self.of),
            open=tuple(dict.fromkeys(("train", self.of))),
        )

    def rows_of(self, task: Task) -> Drawn:
        """Return the rows of a task of an opened suite, in the order of their hashes."""
        try:
            rows = task.rows(self.of)
        except SplitError as error:
            if self.of in task.open:
                raise
            raise SplitError(f"{error} Test inputs are asked for by name: test-inputs.") from None
        keys = keys_of(rows)
        salt = f"{self.seed}\0{task.name}\0".encode("utf-8", "surrogatepass")
        order = sorted(range(len(keys)), key=lambda row: blake3(salt + keys[row]).digest())
        order = order[: self.rows]
        labels = rows.labels[order]
        if self.answers != "labels":
            labels = np.full(len(order), ABSENT, np.int64)
        chosen = [keys[row] for row in order]
        digest = blake3(b"".join(chosen) + labels.astype("<i8").tobytes()).hexdigest()
        return Drawn(Rows(picked(rows.inputs, order), labels, digest), tuple(chosen))

    def batch(self, task: str, step: int, size: int, rows: int) -> np.ndarray:
        """Return which of so many drawn rows a step takes, (min(size, rows),), none twice."""
        salt = f"{self.seed}\0{task}\0{step}".encode("utf-8", "surrogatepass")
        words = np.frombuffer(blake3(salt).digest(length=8 * rows), "<u8")
        return np.argsort(words, kind="stable")[:size]

    def to_mapping(self) -> dict[str, Any]:
        """Return the draw as plain data."""
        return {
            "split": self.split,
            "rows": self.rows,
            "answers": self.answers,
            "seed": self.seed,
        }

    def __str__(self) -> str:
        number = "all" if self.rows is None else f"{self.rows}"
        return f"{number} {self.split} {'inputs' if self.rows != 1 else 'input'}".replace(
            "test-inputs inputs", "test inputs"
        )


@dataclass(frozen=True)
class Drawn:
    """Rows that were drawn. keys: what identifies their inputs (`inputs.key`)."""

    rows: Rows
    keys: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def need(self, least: int, task: str, what: str) -> None:
        """Raise SplitError where there are fewer rows than that."""
        if len(self) < least:
            raise SplitError(
                f"task {task!r}: {counted(len(self), 'row')} for {what}, which needs {least} or"
                " more. Give more rows."
            )


def keys_of(rows: Rows) -> list[bytes]:
    """Return what identifies the inputs of rows."""
    inputs = rows.inputs
    return inputs.keys() if isinstance(inputs, Inputs) else [key(one) for one in inputs]


def picked(inputs: Sequence[Any], order: Sequence[int]) -> Sequence[Any]:
    """Return some inputs, in an order; of what is decoded when asked for, nothing is."""
    return inputs.picked(order) if isinstance(inputs, Inputs) else [inputs[row] for row in order]


@dataclass(frozen=True)
class _Read:
    """Reads rows anew each time, by a reader that is forgotten. blind: the split without labels."""

    read: Callable[[Split], Rows]
    blind: Split | None

    def __call__(self, split: Split) -> Rows:
        rows = pickle.loads(pickle.dumps(self.read))(split)
        if split != self.blind:
            return rows
        return replace(rows, labels=np.full(len(rows), ABSENT, np.int64))


def _fresh(task: Task) -> Task:
    """Return the task with a reader that has read nothing."""
    return pickle.loads(pickle.dumps(task))
