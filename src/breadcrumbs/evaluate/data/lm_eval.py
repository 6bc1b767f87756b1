"""Tasks of lm-eval as tasks of a suite, with validation and test rows apart."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from breadcrumbs.errors import (
    BreadcrumbsError,
    MissingExtraError,
    SplitError,
    SuiteError,
    install,
    listing,
    suggestion,
)
from breadcrumbs.evaluate.data.settings import check_head
from breadcrumbs.evaluate.data.task import LM_EVAL, SPLITS, Rows, Split, Task

#: The first release with the interface that is used here.
_LEAST = (0, 4, 13)

#: The seed that lm-eval draws shots with.
_SEED = 1234

#: Of a task's configuration, what says where rows are, which the rows themselves say better.
_WHERE = {
    *("custom_dataset", "dataset_path", "dataset_name", "dataset_kwargs", "fewshot_split"),
    *("training_split", "validation_split", "test_split", "num_fewshot"),
}


def lm_eval(module: str) -> Any:
    """Return one of lm-eval's modules. Importing it takes seconds."""
    return importlib.import_module(f"lm_eval.{module}")


def version() -> str:
    """Return the version of lm-eval; MissingExtraError where it is not installed, or too old."""
    advice = install("evaluate", "lm-eval[hf]>=0.4.13")
    try:
        found = importlib.metadata.version("lm-eval")
        importlib.metadata.version("accelerate")  # which lm-eval imports for models of transformers
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            f"foundation causal needs {error.name}, which is not installed. {advice}"
        ) from None
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if numbers < _LEAST:
        raise MissingExtraError(f"foundation causal: lm-eval {found} is too old. {advice}")
    return found


def is_file(source: str) -> bool:
    """Whether a source is the path of a task's YAML; all else is a name, whatever lies there."""
    return source.endswith((".yaml", ".yml"))


def task(
    name: str,
    source: str,
    *,
    splits: Mapping[str, str] | None = None,
    metric: str | None = None,
    head: Mapping[str, Any] | None = None,
    finetuned: str | None = None,
    folder: Path | None = None,
) -> Task:
    """Return a task of lm-eval as a task of a suite; it is loaded for that.

    source: its name, or the path of its YAML, with or without ``lm-eval:``. splits: ours -> a split
    of its data, or a part, such as ``train[:80%]`` or ``validation[100:]``. metric: one of its own;
    the first unless told. head: ``shots``, examples out of the training rows before each question;
    as many as the task says unless told. folder: what a relative path begins at. SuiteError.
    """
    version()
    source = source.removeprefix(LM_EVAL)
    if is_file(source):
        source = str((folder or Path()) / source)
    where = f"task {name!r}"
    head = dict(head or {})
    bare = Task(name, (), lambda split: Rows((), np.zeros(0, np.int64), ""), head=head)
    check_head(bare, ("shots",))
    shots = head.get("shots")
    if shots is not None and (type(shots) is not int or shots < 0):
        raise SuiteError(f"{where}: head: shots: {shots!r} is not possible. Give 0 or more.")
    with _explained(where, source):
        made = _original(source)
    parts = _parts(where, made, splits or {})
    if _shots(made, shots) and "train" not in parts and made.fewshot_cfg.samples is None:
        raise SuiteError(
            f"{where}: shots come out of training rows, and it has none. Say where they are:"
            " splits: {train: NAME, ...}; or head: {shots: 0}."
        )
    reader = LmEval(name, source, tuple(parts.items()), shots)
    return replace(bare, read=reader, metric=_metric(where, made, metric), finetuned=finetuned)


@dataclass(frozen=True)
class LmEval:
    """What a task of lm-eval reads its rows with: ``read`` of a `Task`.

    splits: the splits that there are, and which rows of its data are in each. shots: if told.
    """

    name: str
    source: str
    splits: tuple[tuple[str, str], ...]
    shots: int | None

    def __call__(self, split: Split) -> Rows:
        """Return the documents of a split, as JSON; the digest is of all that scores depend on."""
        return _rows(self, split)

    def task(self, split: Split) -> Any:
        """Return lm-eval's task with the rows of that split for its test rows, and no others.

        Shots come from training rows alone. SplitError if there is no such split.
        """
        original, parts = _original(self.source), dict(self.splits)
        if split not in parts:
            raise SplitError(
                f"task {self.name!r}: lm-eval's {self.source!r} has no {split} rows: what it is"
                " scored on is kept for the test. Say which they are, such as"
                ' splits: {validation: "train[-500:]"}.'
            )
        data = {"test": _carved(original.dataset, parts[split])}
        if "train" in parts:
            data["train"] = _carved(original.dataset, parts["train"])
        train = "train" if "train" in data else None
        shots = _shots(original, self.shots)
        config = {
            field.name: getattr(original.config, field.name) for field in fields(original.config)
        }
        config |= {
            "task": self.name,
            "custom_dataset": lambda **_: data,
            "dataset_kwargs": None,
            "training_split": train,
            "validation_split": None,
            "test_split": "test",
            "fewshot_split": train,
            "fewshot_config": replace(original.fewshot_cfg, split=train),
            "num_fewshot": shots,
        }
        with quiet():
            made = lm_eval("api.task").ConfigurableTask(config=config)
            made.set_fewshot_seed(seed=_SEED)
        return made


@functools.lru_cache(maxsize=64)
def _rows(reader: LmEval, split: Split) -> Rows:
    made = reader.task(split)
    shots = made.config.num_fewshot
    left_out = _WHERE | {"task", "fewshot_config", "metadata"}
    about = {name: value for name, value in _fields(made.config).items() if name not in left_out}
    documents = [_json(document) for document in made.test_docs()]
    digest = blake3(_json([version(), about, shots, made.fewshot_cfg if shots else None]).encode())
    for document in documents:
        digest.update(document.encode() + b"\n")
    if shots:
        digest.update(_json([list(made.fewshot_docs()), _SEED]).encode())
    return Rows(tuple(documents), np.zeros(len(documents), np.int64), digest.hexdigest())


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    """Return what JSON has no form for; of functions their source, which has no address in it."""
    if callable(value):
        try:
            return inspect.getsource(value)
        except (OSError, TypeError):
            return getattr(value, "__qualname__", type(value).__qualname__)
    return _fields(value) if is_dataclass(value) else str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


@functools.lru_cache(maxsize=64)
def _original(source: str) -> Any:
    """Return lm-eval's own task, with its data loaded; SuiteError if it is not one task."""
    manager = _manager(not is_file(source))
    with quiet():
        if not is_file(source) and source not in manager.all_tasks:
            near = suggestion(source, manager.all_tasks)
            raise SuiteError(f"lm-eval has no task {source!r}.{near}")
        if source in manager.all_groups or source in manager.all_tags:
            raise SuiteError(f"{source!r} is a group of lm-eval's tasks. Name one of its tasks.")
        (made,) = manager.load([source])["tasks"].values()
    if type(made) is not lm_eval("api.task").ConfigurableTask:
        raise SuiteError(f"lm-eval's {source!r} is written in Python. Only those in YAML are read.")
    return made


@functools.lru_cache(maxsize=2)
def _manager(everything: bool) -> Any:
    """Return lm-eval's index of tasks, which takes a while to make of all that it has."""
    with quiet():
        return lm_eval("tasks").TaskManager(include_defaults=everything)


def _parts(where: str, made: Any, given: Mapping[str, str]) -> dict[str, str]:
    """Return which rows of the data are in each of our splits; SuiteError if they overlap."""
    own = made.config
    scored = [name for name in (own.validation_split, own.test_split) if name]
    parts = {"train": own.training_split, "test": scored[-1] if scored else None}
    if len(set(scored)) == 2:
        parts["validation"] = scored[0]
    for split, rows in given.items():
        if split not in SPLITS:
            raise SuiteError(
                f"{where}: splits: there is no {split!r}.{suggestion(str(split), SPLITS)} There are"
                f" {', '.join(SPLITS)}."
            )
        if not isinstance(rows, str):
            raise SuiteError(f"{where}: splits: {split}: {rows!r} is not a text like train[:80%].")
        parts[split] = rows
    parts = {split: parts[split] for split in SPLITS if parts.get(split)}
    ranges = {split: _ranges(where, made.dataset, rows) for split, rows in parts.items()}
    for split, mine in ranges.items():
        for other in list(parts)[list(parts).index(split) + 1 :]:
            for name, start, stop in mine:
                if any(n == name and a < stop and start < b for n, a, b in ranges[other]):
                    raise SuiteError(
                        f"{where}: {split} rows ({parts[split]}) and {other} rows ({parts[other]})"
                        f" overlap in {name!r}. Say which are which, such as splits:"
                        f' {{{split}: "{name}[:50%]", {other}: "{name}[50%:]"}}.'
                    )
    return parts


def _ranges(where: str, dataset: Any, rows: str) -> list[tuple[str, int, int]]:
    from datasets import ReadInstruction

    sizes = {name: len(dataset[name]) for name in dataset}
    try:
        found = ReadInstruction.from_spec(rows).to_absolute(sizes)
    except (ValueError, AssertionError):
        name = rows.partition("[")[0]
        raise SuiteError(
            f"{where}: splits: {rows!r} is not a part of its data.{suggestion(name, sizes)}"
            f" There are"
            f" {listing(sizes)}; a part is written like train[:80%] or train[-500:]."
        ) from None
    return [(part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
            for part in found]  # fmt: skip


def _carved(dataset: Any, rows: str) -> Any:
    from datasets import concatenate_datasets

    parts = [
        dataset[name].select(range(start, stop)) for name, start, stop in _ranges("", dataset, rows)
    ]
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


def _shots(made: Any, given: int | None) -> int:
    return given if given is not None else made.config.num_fewshot or 0


def _metric(where: str, made: Any, given: str | None) -> str:
    known = list(made.aggregation())
    name = (given or known[0]).partition(",")[0]
    if name not in known:
        raise SuiteError(
            f"{where}: metric: there is no {name!r}.{suggestion(name, known)} It has"
            f" {', '.join(known)}."
        )
    if not made.higher_is_better().get(name, True):
        raise SuiteError(
            f"{where}: metric: of {name!r}, lower is better, which cannot be compared with a"
            " fine-tuned model's as a ratio. Give another metric."
        )
    return given or name


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval, and the data sets that it loads, from reporting and from drawing bars."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _explained(where: str, source: str) -> Iterator[None]:
    """Raise what loading a task raises, of whatever type, as one line."""
    try:
        yield
    except BreadcrumbsError as error:
        raise SuiteError(f"{where}: {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SuiteError(f"{where}: lm-eval cannot load {source!r}: {reason}") from error
