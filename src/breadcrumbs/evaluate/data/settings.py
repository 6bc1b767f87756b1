"""Settings of foundations and of their heads, checked where they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.evaluate.data.task import Task
from breadcrumbs.methods.parameters import decimal


class Setting(Protocol):
    """A default, and what else is possible; `breadcrumbs.methods.parameters` has most of them."""

    @property
    def default(self) -> Any: ...
    @property
    def range(self) -> str: ...
    def parse(self, value: Any) -> Any: ...


@dataclass(frozen=True)
class Positive:
    """A number above 0."""

    default: float
    help: str
    range: str = "a number above 0"

    def parse(self, value: Any) -> float:
        number = float(decimal(value))
        if not 0 < number < float("inf"):
            raise ValueError(value)
        return number


@dataclass(frozen=True)
class Switch:
    """true or false."""

    default: bool
    help: str
    range: str = "true or false"

    def parse(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(value)
        return value


@dataclass(frozen=True)
class Name:
    """A path or a hub id, or none."""

    help: str
    default: None = None
    range: str = "a path or a hub id"

    def parse(self, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError(value)
        return value


def checked(kind: str, declared: Mapping[str, Setting], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a foundation, with defaults; SuiteError names one that cannot be."""
    values = {name: setting.default for name, setting in declared.items()}
    for name, value in given.items():
        if name not in declared:
            raise SuiteError(
                f"foundation {kind}: has no setting {name!r}.{suggestion(name, declared)} It has"
                f" {', '.join(declared) or 'none'}."
            )
        try:
            values[name] = declared[name].parse(value)
        except ValueError:
            raise SuiteError(
                f"foundation {kind}: {name}: {value!r} is not possible. Give"
                f" {declared[name].range}."
            ) from None
    return values


def check_head(task: Task, known: Sequence[str]) -> None:
    """Raise SuiteError for a setting of the head that its foundation does not have."""
    for name in task.head:
        if name not in known:
            has = f"It has {', '.join(known)}" if known else "It has none"
            raise SuiteError(
                f"task {task.name!r}: head: there is no {name!r}.{suggestion(str(name), known)}"
                f" {has}."
            )


def words(task: Task) -> tuple[str, ...]:
    """Return what each class is called in words: the head's ``words``, or else the labels.

    ``words`` is a list in the order of the labels, or a mapping from labels.
    """
    given = task.head.get("words", task.labels)
    where = f"task {task.name!r}: head: words"
    if isinstance(given, Mapping):
        given = {str(label): word for label, word in given.items()}
        for label in given:
            if label not in task.labels:
                raise SuiteError(
                    f"{where}: there is no label {label!r}.{suggestion(label, task.labels)}"
                )
        given = [given.get(label, label) for label in task.labels]
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != len(task.labels):
        raise SuiteError(f"{where}: give {len(task.labels)} of them, one for each label.")
    if not all(isinstance(word, str) and word for word in given):
        raise SuiteError(f"{where}: {list(given)!r} are not all texts. Put numbers in quotes.")
    return tuple(given)
