"""What a checkpoint holds, from its headers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from breadcrumbs import checkpoint
from breadcrumbs.archives import archive as archives
from breadcrumbs.checkpoint.adapters import lycoris, reading
from breadcrumbs.checkpoint.safetensors import read_header
from breadcrumbs.checkpoint.tensors import WEIGHT_DTYPES, Checkpoint
from breadcrumbs.engine.digests import FileDigests
from breadcrumbs.errors import BreadcrumbsError, CheckpointError
from breadcrumbs.merging.said import scores
from breadcrumbs.plan.statistics import KEY
from breadcrumbs.store import Store, files, info
from breadcrumbs.taskfile import reader
from breadcrumbs.taskfile.factors import LEFT, RIGHT
from breadcrumbs.taskfile.reader import TaskFile
from breadcrumbs.taskfile.writing import BLOCKS, DATA


def inspect(path: str, *, with_hash: bool = False) -> dict[str, Any]:
    """Return plain data: files, tensors, counts by dtype, and what the file says of itself.

    quantised: how many tensors are, and how, None where none is; bytes are those in the files.
    merged_from: where a merged model came from. scores: those that its card states. statistics:
    what the arrays are, if they are any. task: what a task file says, None for others; its tensors
    are those that it keeps entries of. archive: what an archive of tasks says. adapter: what an
    adapter changes. store: what a store is, None for others. with_hash: of every file; and all that
    task files and archives hold is read and checked.
    """
    if files.is_store(path):
        return _store(path)
    with checkpoint.open(path) as opened:
        digests = _digests(opened.files) if with_hash else {}
        task = reader.of(opened) if reader.is_task(opened) else None
        archive = archives.of(opened) if archives.is_archive(opened) else None
        if with_hash and (read := task or archive) is not None:
            read.verify()
        tensors = _tensors(opened, task)
        dtypes = Counter[str]()
        for tensor in tensors:
            dtypes[tensor["dtype"]] += tensor["kept"] if task else tensor["entries"]
        listed = [
            {
                "file": opened.shown_file(file),
                "bytes": file.stat().st_size,
                **({"blake3": digests[file]} if with_hash else {}),
            }
            for file in opened.files
        ]
        return {
            "path": opened.repo or opened.label,
            "files": listed,
            "parameters": sum(dtypes[dtype] for dtype in dtypes if dtype in WEIGHT_DTYPES),
            "bytes": sum(t.stored for t in opened.tensors.values()),
            "quantised": opened.quantised or None,
            "entries_by_dtype": dict(dtypes),
            "kinds": dict(Counter(tensor.kind for tensor in opened.tensors.values())),
            "merged_from": _provenance(opened.files),
            "scores": scores(opened.folder),
            "statistics": _parsed(opened.metadata.get(KEY)),
            "task": _task(task) if task else None,
            "archive": archive.to_mapping() if archive else None,
            "store": None,
            "adapter": _adapter(opened) if opened.is_bare_adapter else None,
            "tensors": tensors,
        }


def _store(path: str) -> dict[str, Any]:
    """Return what there is to say of a store, with the keys of a checkpoint."""
    with Store.open(path) as opened:
        said = info(opened)
        tasks = opened.ledger.tasks()
    used = [tasks[entry["task"]] for entry in said["tasks"]]
    listed = [
        {"file": str(files.place(Path(path), task.hash)), "bytes": task.bytes, "blake3": task.hash}
        for task in used
    ]
    return {
        "path": path,
        "files": listed,
        "parameters": 0,
        "bytes": said["bytes"]["tasks"],
        "quantised": None,
        "entries_by_dtype": {},
        "kinds": {},
        "merged_from": None,
        "scores": [],
        "statistics": None,
        "task": None,
        "archive": None,
        "store": said,
        "tensors": [],
    }


def _tensors(opened: Checkpoint, task: TaskFile | None) -> list[dict[str, Any]]:
    """Return what there is to say of each tensor, or of those that a task keeps entries of."""
    if task is None:
        return [
            {
                "name": t.name,
                "dtype": t.dtype,
                "shape": list(t.shape),
                "bytes": t.stored,
                "entries": t.size,
                **({"quantised": t.layout} if t.layout else {}),
            }
            for t in opened.tensors.values()
        ]
    return [
        {
            "name": t.name,
            "dtype": t.dtype,
            "shape": list(t.shape),
            "bytes": sum(
                opened.tensors[start + t.name].nbytes
                for start in ((LEFT, RIGHT) if t.rank else (BLOCKS, DATA))
            ),
            "entries": t.size,
            "kept": t.kept,
            "positions": task.codes(t.name),
        }
        for t in task.tensors.values()
    ]


def _task(task: TaskFile) -> dict[str, Any]:
    said = task.about.to_mapping()
    del said["tensors"]
    return {**said, "kept": task.about.kept, "density": task.density, "hash": task.hash}


def _adapter(opened: Checkpoint) -> dict[str, Any]:
    """Return of which kind an adapter is, and what it changes; why, where that is not known."""
    try:
        found = reading.of(opened)
    except BreadcrumbsError as error:
        return {"trouble": str(error)}
    modules = [name.removesuffix(".weight") for name in (*found.products, *found.others)]
    ranks = {a.shape[0] for a, _ in found.products.values()}
    ranks |= {rank for parts in found.others.values() if (rank := lycoris.rank(parts))}
    kind = _KINDS.get(str(found.config.get("peft_type")), "LoRA")
    return {
        "kind": "DoRA" if found.magnitudes else kind,
        "format": found.kind,
        "ranks": sorted(ranks),
        "scales": sorted(set(found.scales.values())),
        "modules": [*modules, *found.stacks],
        "whole": list(found.whole),
        "rows": {name: len(indices) for name, (_, indices) in found.rows.items()},
        "base": found.trained_on or None,
    }


_KINDS = {"LOHA": "LoHa", "LOKR": "LoKr"}


def _digests(files: tuple[Path, ...]) -> dict[Path, str]:
    digests = FileDigests(files)
    for task in digests.tasks():
        task()
    return digests.digests


def _provenance(files: tuple[Path, ...]) -> Any:
    """Return the recipe and inputs that a file of this program carries in its header."""
    for file in files:
        if file.suffix != ".safetensors":
            continue
        try:
            return _parsed(read_header(file).metadata.get("breadcrumbs"))
        except CheckpointError:
            return None
    return None


def _parsed(text: str | None) -> Any:
    """Return what JSON in a file's metadata says; None if nothing, or something else."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
