"""Tasks as small files: what a fine-tuning changed, or what a method keeps of it.

docs/task-file.md specifies the format.

    from breadcrumbs import tasks

    tasks.pack("base", "ft1", "t1.safetensors")
    breadcrumbs.merge("base", ["t1.safetensors", "t2.safetensors"], output="merged")

`TaskFile` reads one, `pack` and `unpack` make one and undo it, `opened` is the fine-tuning that it
stands for, as everything that takes a model sees it. `from_adapter` makes one of a LoRA adapter,
`export` makes an adapter, or a patch, of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breadcrumbs.checkpoint.sparse import Kept
    from breadcrumbs.taskfile.reader import TaskFile
    from breadcrumbs.taskfile.view import opened
    from breadcrumbs.tasks.exporting import export
    from breadcrumbs.tasks.importing import from_adapter
    from breadcrumbs.tasks.packing import pack
    from breadcrumbs.tasks.unpacking import unpack

__all__ = ["Kept", "TaskFile", "export", "from_adapter", "opened", "pack", "unpack"]

_HOMES = {
    "Kept": "checkpoint.sparse",
    "TaskFile": "taskfile.reader",
    "export": "tasks.exporting",
    "from_adapter": "tasks.importing",
    "opened": "taskfile.view",
    "pack": "tasks.packing",
    "unpack": "tasks.unpacking",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for then: merging needs some of it, and packing needs merging."""
    if name not in _HOMES:
        raise AttributeError(f"module 'breadcrumbs.tasks' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"breadcrumbs.{_HOMES[name]}"), name)
