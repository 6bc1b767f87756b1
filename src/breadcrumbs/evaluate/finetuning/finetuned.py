"""A fine-tuned model on disk: a folder like the base's, and `finetune.json`, what it was made of.

SEED/TASK/model.safetensors    the base's tensors; those that were not trained byte for byte
SEED/TASK/finetune.json        settings, rows, base; accuracy before and after, seconds, versions
SEED/TASK/...                  config, tokenizer and modules of the base
    or, of an adapter, adapter_model.safetensors and adapter_config.json alone, as PEFT's
SEED/TASK.partial/             while it is being made: the journal of `Writer`, and the state
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from breadcrumbs.checkpoint import beside, composite
from breadcrumbs.checkpoint.folder import is_plain
from breadcrumbs.checkpoint.journal import JOURNAL, Journal
from breadcrumbs.checkpoint.layout import Layout, Place
from breadcrumbs.checkpoint.outfile import Entry
from breadcrumbs.checkpoint.tensors import Checkpoint
from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.errors import OutputError, SuiteError
from breadcrumbs.evaluate.finetuning.lora import STEM, Lora

if TYPE_CHECKING:
    from breadcrumbs.evaluate.data.task import Task
    from breadcrumbs.evaluate.finetuning.training import Settings
    from breadcrumbs.evaluate.suite import Suite

RECORD = "finetune.json"
STATE = "state"
_PACKAGES = ("breadcrumbs", "torch", "transformers", "tokenizers", "numpy", "safetensors")


def folder(output: Path, task: str, seed: int) -> Path:
    """Return where a fine-tuning goes; SuiteError for a task that no folder can be called."""
    taken = task == "suite.yaml" or task.endswith((".partial", ".safetensors"))
    if taken or not task or not is_plain(task):
        raise SuiteError(f"task {task!r}: cannot be the name of a folder. Rename the task.")
    return output / f"seed-{seed}" / task


def made_of(suite: Suite, task: Task, settings: Settings, seed: int) -> dict[str, Any]:
    """Return what is known of a fine-tuning without reading data or weights, as flat plain data."""
    foundation = suite.foundation
    of = {"task": task.name, "seed": seed, **asdict(settings)}
    of |= {"foundation": foundation.kind, "foundation settings": dict(foundation.settings)}
    of["head"] = dict(task.head)
    return json.loads(json.dumps(of, sort_keys=True))


def found(path: Path) -> dict[str, Any] | None:
    """Return what `finetune.json` says in a finished fine-tuning; None where there is nothing.

    OutputError for a folder that is something else.
    """
    if not path.exists():
        return None
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if isinstance(record["made_of"], dict):
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise OutputError(
        f"{path}: exists, and `breadcrumbs finetune` did not write it. Give another output folder."
    )


def begun(path: Path) -> dict[str, Any] | None:
    """Return what a fine-tuning under way is made of; None where no state of one is kept."""
    try:
        (partial(path) / STATE).stat()
        with open(partial(path) / JOURNAL, "rb") as lines:
            of = json.loads(json.loads(next(lines))["key"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
    return of if isinstance(of, dict) else None


def partial(path: Path) -> Path:
    """Return the folder in which ``path`` is being made."""
    return path.with_name(path.name + ".partial")


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise OutputError, which says what differs, unless a fine-tuning was made of ``now``."""
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        name = other[0]
        more = f" (and {len(other) - 1} more differ)" if len(other) > 1 else ""
        raise OutputError(
            f"{path}: was made with {name} {_shown(before.get(name))}, and now it is"
            f" {_shown(now[name])}{more}. Give another output folder, or --force to start over."
        )


def clear(path: Path) -> None:
    """Remove a fine-tuning, finished or not; OutputError for what is none, or is being written."""
    if found(path) is not None:
        shutil.rmtree(path)
    if (partial(path) / JOURNAL).exists():
        journal = Journal(partial(path), path, again=True, advice="")
        shutil.rmtree(partial(path))
        journal.close()


def begin(path: Path, base: Checkpoint, of: Mapping[str, Any], lora: Lora | None = None) -> Writer:
    """Return a writer of the fine-tuning, which nobody else can open as long as it is open.

    lora: what is written instead of the base's tensors, if an adapter is trained. What was begun of
    the same is left; OutputError where something else was.
    """
    if (before := begun(path)) is not None:
        check_same(path, before, of)
    else:
        clear(path)
    if lora is None:
        parts = [Entry(tensor.name, tensor.dtype, tensor.shape) for tensor in base.tensors.values()]
        layout = composite.of(base)
    else:
        parts = [Entry(name, "F32", array.shape) for name, array in lora.state().items()]
        layout = Layout((Place(stem=STEM),))
    return Writer(
        path,
        parts,
        {"format": "pt"},
        shard_size=None,
        key=json.dumps(of, sort_keys=True),
        force=False,
        resume=True,
        again="run this again",
        layout=layout,
    )


def finish(
    writer: Writer,
    base: Checkpoint,
    state: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
    lora: Lora | None = None,
) -> None:
    """Write a fine-tuning and give it its name. state: all tensors, as in the base's file, or those
    of the adapter ``lora``."""
    for number, entry in enumerate(writer.entries):
        writer.write(number, 0, np.ascontiguousarray(state[entry.name]).reshape(-1))

    def extras(place: Path) -> None:
        if lora is None:
            beside.copy(base, place)
        else:
            lora.write_config(place)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (place / RECORD).write_text(text, encoding="utf-8")

    writer.close(extras)
    tidy(writer.output)


def tidy(path: Path) -> None:
    """Remove the state of training from a finished fine-tuning.

    Not before it has its name: syncing it takes a while, and killed in there it would begin again.
    """
    (path / STATE).unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Return the versions of what results depend on."""
    known = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            continue
    return known


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:
        return value[:8]  # a digest
    return json.dumps(value, ensure_ascii=False)
