"""A suite: a foundation, a base and tasks, from one YAML file that docs/suite.md specifies.

Reading a suite opens no data and no weights (lm-eval's tasks read theirs). The same file gives the
same rows in every process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import whole
from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.evaluate.data import declared as tasks
from breadcrumbs.evaluate.data.metrics import EXACT_MATCH
from breadcrumbs.evaluate.data.task import Task
from breadcrumbs.evaluate.foundations.foundation import Answering, Foundation
from breadcrumbs.plan.declared import SUITE

SHIPPED = Path(__file__).parent / "suites"
KEYS = ("suite", "foundation", "base", "tasks", "finetuned_seed")


@dataclass(frozen=True)
class Suite:
    """What models are evaluated on. base: path or hub id. path: the file that it was read from.

    declared: what the file says, as plain data in which no path is relative. seed: that the models
    were fine-tuned with, if it is known.
    """

    name: str
    foundation: Foundation
    base: str
    tasks: tuple[Task, ...]
    path: Path | None = None
    declared: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seed: int | None = None

    def task(self, name: str) -> Task:
        """Return the task of that name; SuiteError with the nearest one."""
        known = [task.name for task in self.tasks]
        if name not in known:
            raise SuiteError(
                f"suite {self.name}: there is no task {name!r}.{suggestion(name, known)} The tasks"
                f" are {', '.join(known)}."
            )
        return self.tasks[known.index(name)]

    def tuning(self) -> Suite:
        """Return the suite without test rows, for all that chooses or trains."""
        return replace(self, tasks=tuple(task.tuning() for task in self.tasks))

    def with_models(self, models: Mapping[str, str], seed: int | None = None) -> Suite:
        """Return the suite with these as the fine-tuned models of the tasks that are named.

        seed: that they were fine-tuned with.
        """
        for name in models:
            self.task(name)
        found = {name: tasks.absolute(model, Path()) for name, model in models.items()}
        changed = [
            replace(task, finetuned=found.get(task.name, task.finetuned)) for task in self.tasks
        ]
        entries = [
            {**entry, "finetuned": found[entry["task"]]} if entry["task"] in found else entry
            for entry in self.declared["tasks"]
        ]
        told = {**self.declared, "tasks": entries, "finetuned_seed": seed}
        if seed is None:
            del told["finetuned_seed"]
        return replace(self, tasks=tuple(changed), declared=told, seed=seed)

    def to_mapping(self, folder: Path | None = None) -> dict[str, Any]:
        """Return the suite as plain data, as a file holds it.

        folder: of that file; paths inside it are written relative to it, all others in full.
        """
        return _relative(dict(self.declared), None if folder is None else os.path.abspath(folder))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the suite as a file, which gives the same tasks and rows from there."""
        import yaml

        path = Path(path)
        data = self.to_mapping(path.parent)
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
        whole.write_text(path, text)


def shipped() -> list[str]:
    """Return the names of the suites that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(source: str | os.PathLike[str], base: str | None = None) -> Suite:
    """Return the suite that a YAML file, or the name of a shipped one, declares.

    base: another base than the file's: a path, a hub id, or ``package:NAME/path``.
    """
    path = _file(os.fspath(source))
    data = SUITE.mapping(SUITE.read(path), str(path), KEYS)
    for key in ("foundation", "tasks"):
        if key not in data:
            raise SuiteError(
                f"{path}: there is no {key!r}. A suite has foundation, base and tasks."
            )
    if base is None and "base" not in data:
        raise SuiteError(f"{path}: there is no 'base'. Name the folder or hub id of the base.")
    folder = path.parent
    name = SUITE.line(data.get("suite", path.stem), f"{path}: suite")
    text = SUITE.line(data["base"], f"{path}: base") if base is None else base
    text = tasks.absolute(text, folder if base is None else Path())
    found: list[tasks.Declared] = []
    for i, entry in enumerate(SUITE.items(data["tasks"], f"{path}: tasks", least=1)):
        found += tasks.read(entry, folder, text, f"{path}: tasks[{i}]")
    _check_names([one.task.name for one in found], path)
    kind = _foundation(data["foundation"], folder, f"{path}: foundation")
    mapping = {
        "suite": name,
        "foundation": kind,
        "base": text,
        "tasks": [dict(one.mapping) for one in found],
    }
    seed = None
    if "finetuned_seed" in data:
        seed = SUITE.whole(data["finetuned_seed"], f"{path}: finetuned_seed")
        mapping["finetuned_seed"] = seed
    foundation = _made(kind, folder, f"{path}: foundation")
    _check_metrics([one.task for one in found], foundation, path)
    return Suite(
        name,
        foundation,
        tasks.place(text, folder, f"{path}: base"),
        tuple(one.task for one in found),
        path,
        mapping,
        seed,
    )


def _file(source: str) -> Path:
    path = Path(os.path.expanduser(source))
    if os.path.isfile(path):
        return path
    if source in shipped():
        return SHIPPED / f"{source}.yaml"
    what = "is a folder" if os.path.isdir(path) else "no such file"
    raise SuiteError(
        f"{source}: {what}.{suggestion(source, shipped())} Give a suite's YAML file, or one of"
        f" {', '.join(shipped())}."
    )


def _check_metrics(found: list[Task], foundation: Foundation, path: Path) -> None:
    for task in found:
        if task.metric == EXACT_MATCH and not isinstance(foundation, Answering):
            raise SuiteError(
                f"{path}: task {task.name!r}: metric: {EXACT_MATCH} is of answers that are written,"
                f" and foundation {foundation.kind} writes none. Give accuracy."
            )


def _check_names(names: list[str], path: Path) -> None:
    folded = [name.casefold() for name in names]
    for name in names:
        if folded.count(name.casefold()) > 1:
            raise SuiteError(
                f"{path}: tasks: the name {name!r} appears twice (upper and lower case count as"
                " equal). Rename one."
            )


def _foundation(value: Any, folder: Path, where: str) -> str | dict[str, Any]:
    """Return the declaration with paths in full: of a Python file, and settings with a ``/``."""
    if isinstance(value, Mapping):
        data = SUITE.mapping(value, where)
        if "kind" not in data:
            raise SuiteError(f"{where}: there is no 'kind', such as {{kind: sentence, ...}}.")
        for key, setting in data.items():
            if isinstance(setting, str) and "/" in setting:
                data[key] = tasks.absolute(setting, folder)
        return {**data, "kind": _foundation(data["kind"], folder, f"{where}: kind")}
    text = SUITE.line(value, where)
    if text.endswith(".py"):
        found = tasks.absolute(text, folder)
        if found == text and not os.path.exists(text):
            raise SuiteError(f"{where}: {text}: no such file.")
        return found
    return text


def _made(kind: str | dict[str, Any], folder: Path, where: str) -> Foundation:
    from breadcrumbs.evaluate import foundations

    try:
        return foundations.make(kind, folder)
    except SuiteError as error:
        raise SuiteError(f"{where}: {error}") from None


def _relative(value: Any, folder: str | None) -> Any:
    """Return plain data with the absolute paths inside ``folder`` relative to it."""
    if isinstance(value, Mapping):
        return {key: _relative(one, folder) for key, one in value.items()}
    if isinstance(value, list):
        return [_relative(one, folder) for one in value]
    if folder is not None and isinstance(value, str) and value.startswith(folder + os.sep):
        return Path(value).relative_to(folder).as_posix()
    return value
