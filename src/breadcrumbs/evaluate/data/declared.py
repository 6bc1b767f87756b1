"""From what a suite says of a task to a `Task` that reads its rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breadcrumbs.errors import SuiteError
from breadcrumbs.evaluate.data import sources, splits
from breadcrumbs.evaluate.data.metrics import EXACT_MATCH, METRICS
from breadcrumbs.evaluate.data.reading import Labels, Reader
from breadcrumbs.evaluate.data.sources import HUB, PACKAGE, Source
from breadcrumbs.evaluate.data.table import Columns
from breadcrumbs.evaluate.data.task import LM_EVAL, SPLITS, Task
from breadcrumbs.plan.declared import SUITE

KEYS = ("task", "data", "config", "revision", "text", "image", "label", "labels", "splits", "seed")
KEYS += ("metric", "head", "finetuned")
#: What data begin with that are a task of lm-eval's, and the keys that go with it.
LM_EVAL_KEYS = ("splits", "metric", "head", "finetuned")


@dataclass(frozen=True)
class Declared:
    """A task, and what was said of it, as plain data in which no path is relative."""

    task: Task
    mapping: Mapping[str, Any]


def read(entry: Any, folder: Path, base: str, where: str) -> list[Declared]:
    """Return the tasks of one entry of ``tasks``: a mapping, or a file of one or a list of them.

    folder: what relative paths are relative to. base: for ``{base}`` in ``finetuned``.
    """
    if not isinstance(entry, str):
        return [_task(entry, folder, base, where)]
    path = folder / SUITE.line(entry, where)
    if not os.path.isfile(path):
        raise SuiteError(
            f"{where}: {entry}: no such file. An entry is the path of a YAML file with a task, or"
            " `task:`, `data:` and so on."
        )
    data = SUITE.read(path)
    if isinstance(data, Mapping):
        return [_task(data, path.parent, base, str(path))]
    entries = SUITE.items(data, str(path), least=1)
    return [_task(one, path.parent, base, f"{path}: [{i}]") for i, one in enumerate(entries)]


def _task(entry: Any, folder: Path, base: str, where: str) -> Declared:
    data = SUITE.mapping(entry, where, KEYS)
    for key in ("task", "data"):
        if key not in data:
            raise SuiteError(f"{where}: there is no {key!r}. A task has a name and data.")
    name = SUITE.line(data["task"], f"{where}: task")
    if name in (".", "..") or set(name) & set('/\\:*?"<>|') or not name.isprintable():
        raise SuiteError(f"{where}: task: {name!r} cannot be the name of a folder. Choose another.")
    if isinstance(data["data"], str) and data["data"].startswith(LM_EVAL):
        return _of_lm_eval(name, data, folder, base, where)
    found, data["data"] = _sources(data, folder, where)
    labels = _labels(data["labels"], f"{where}: labels") if "labels" in data else None
    parts = splits.parse(data["splits"], f"{where}: splits") if "splits" in data else {}
    seed = SUITE.whole(data.get("seed", 0), f"{where}: seed")
    known = (*METRICS, EXACT_MATCH)
    metric = SUITE.choice(data.get("metric", "accuracy"), f"{where}: metric", known)
    head = SUITE.mapping(data.get("head", {}), f"{where}: head")
    finetuned = _finetuned(data, folder, base, where)
    if labels is not None:
        data["labels"] = list(labels)
    if parts:
        data["splits"] = {split: splits.written(part) for split, part in parts.items()}
    free = metric == EXACT_MATCH and labels is None
    reader = Reader(name, found, labels, parts, seed, free)
    names = labels if labels is not None else Labels(reader)
    return Declared(Task(name, names, reader.rows, metric, head, finetuned), data)


def _of_lm_eval(name: str, data: dict[str, Any], folder: Path, base: str, where: str) -> Declared:
    """Return a task of lm-eval's, which says itself what its columns and answers are."""
    from breadcrumbs.evaluate.data import lm_eval

    SUITE.mapping(data, f"{where}: of lm-eval", ("task", "data", *LM_EVAL_KEYS))
    source = data["data"].removeprefix(LM_EVAL)
    if lm_eval.is_file(source):
        source = absolute(source, folder)
    data["data"] = LM_EVAL + source
    parts = SUITE.mapping(data.get("splits", {}), f"{where}: splits", SPLITS)
    metric = SUITE.line(data["metric"], f"{where}: metric") if "metric" in data else None
    head = SUITE.mapping(data.get("head", {}), f"{where}: head")
    finetuned = _finetuned(data, folder, base, where)
    made = lm_eval.task(name, source, splits=parts, metric=metric, head=head, finetuned=finetuned)
    return Declared(made, data)


def _finetuned(data: dict[str, Any], folder: Path, base: str, where: str) -> str | None:
    """Return the place of the fine-tuned model, if there is one; ``data`` has it in full then."""
    if data.get("finetuned") is None:
        return None
    text = SUITE.line(data["finetuned"], f"{where}: finetuned")
    meant = text.replace("{base}", _last(base))
    found = place(meant, folder, f"{where}: finetuned")
    data["finetuned"] = text if found == meant else absolute(meant, folder)
    return found


def _sources(data: Mapping[str, Any], folder: Path, where: str) -> tuple[dict[str, Source], Any]:
    """Return the sources by split, and ``data`` with absolute paths."""
    columns = _columns(data, where)
    given = data["data"]
    if not isinstance(given, Mapping):
        return {splits.REST: _source(given, data, columns, folder, f"{where}: data")}, absolute(
            given, folder
        )
    given = SUITE.mapping(given, f"{where}: data", SPLITS)
    found = {
        split: _source(text, data, columns, folder, f"{where}: data: {split}")
        for split, text in given.items()
    }
    if not found:
        raise SuiteError(f"{where}: data: found no entries. Name the files of train and test.")
    return found, {split: absolute(text, folder) for split, text in given.items()}


def _source(
    given: Any, data: Mapping[str, Any], columns: Columns, folder: Path, where: str
) -> Source:
    text = SUITE.line(given, where)
    task = where.partition(": data")[0]
    path = sources.locate(text, folder, where)
    optional = {key: data.get(key) for key in ("config", "revision")}
    for key, value in optional.items():
        if value is not None:
            SUITE.line(value, f"{task}: {key}")
            if path is not None:
                raise SuiteError(f"{task}: {key}: is for hub data sets, and {text} is none.")
    source = Source(text, path, columns, **optional)
    if not source.has_columns:
        named = [key for key in ("text", "image", "label") if key in data]
        if named:
            raise SuiteError(f"{task}: {named[0]}: names a column, and {text} is not a table.")
    return source


def _columns(data: Mapping[str, Any], where: str) -> Columns:
    if "text" in data and "image" in data:
        raise SuiteError(f"{where}: has `text` and `image`. Give one of them.")
    label = SUITE.line(data.get("label", "label"), f"{where}: label")
    if "image" in data:
        return Columns((), SUITE.line(data["image"], f"{where}: image"), label)
    given = data.get("text", "text")
    given = given if isinstance(given, list) else [given]
    text = tuple(SUITE.line(name, f"{where}: text") for name in given)
    if not 1 <= len(text) <= 2:
        raise SuiteError(f"{where}: text: found {len(text)} columns. Give one, or two.")
    return Columns(text, None, label)


def _labels(value: Any, where: str) -> tuple[str, ...]:
    found = []
    for i, name in enumerate(SUITE.items(value, where, least=1)):
        whole = isinstance(name, int) and not isinstance(name, bool)
        found.append(str(name) if whole else SUITE.line(name, f"{where}[{i}]"))
    twice = [name for name in found if found.count(name) > 1]
    if twice:
        raise SuiteError(f"{where}: {twice[0]!r} appears twice.")
    if len(found) < 2:
        raise SuiteError(f"{where}: there is one label. A task has two or more.")
    return tuple(found)


def place(text: str, folder: Path, where: str) -> str:
    """Return the path or hub id of a model that ``text`` means: ``package:NAME/path``, a path
    relative to ``folder`` if something is there, else ``text`` as it is."""
    if text.startswith(PACKAGE):
        path = sources.in_package(text, where)
        if not os.path.exists(path):
            raise SuiteError(f"{where}: {text}: the package has no such folder ({path}).")
        return str(path)
    return absolute(text, folder)


def absolute(text: str, folder: Path) -> str:
    """Return a path as an absolute one if something is there; else the text as it is."""
    if text.startswith((PACKAGE, HUB)):
        return text
    path = sources.beside(folder, text)
    return os.path.abspath(path) if os.path.exists(path) else text


def _last(base: str) -> str:
    return base.split("@")[0].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
