"""Merge fine-tunings of one foundation model into one multi-task model, exactly.

>>> import breadcrumbs
>>> breadcrumbs.merge("base", ["ft1", "ft2"], output="merged")  # doctest: +SKIP

`merge` merges paths, hub ids or state dicts, `open` reads a checkpoint lazily, `TaskVector` does
arithmetic on the difference of two models, `compare` says how alike such differences are,
`greedy_soup` averages the models that help, `compress` and `extract` keep many tasks in one file,
`switch` puts them into a live Torch module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from breadcrumbs.version import __version__

if TYPE_CHECKING:
    from breadcrumbs.analysis import compare
    from breadcrumbs.checkpoint import open
    from breadcrumbs.compression import compress, extract
    from breadcrumbs.errors import BreadcrumbsError
    from breadcrumbs.merging import merge
    from breadcrumbs.soup import greedy_soup
    from breadcrumbs.switching import switch
    from breadcrumbs.task_vector import TaskVector

__all__ = [
    "BreadcrumbsError",
    "TaskVector",
    "__version__",
    "compare",
    "compress",
    "extract",
    "greedy_soup",
    "merge",
    "open",
    "switch",
]

_HOMES = {
    "BreadcrumbsError": "breadcrumbs.errors",
    "TaskVector": "breadcrumbs.task_vector",
    "compare": "breadcrumbs.analysis",
    "compress": "breadcrumbs.compression",
    "extract": "breadcrumbs.compression",
    "greedy_soup": "breadcrumbs.soup",
    "merge": "breadcrumbs.merging",
    "open": "breadcrumbs.checkpoint",
    "switch": "breadcrumbs.switching",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that the command line starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'breadcrumbs' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
