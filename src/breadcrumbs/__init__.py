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
    from breadcrumbs.archives import compress, extract
    from breadcrumbs.checkpoint import open
    from breadcrumbs.errors import BreadcrumbsError
    from breadcrumbs.merging.api import merge
    from breadcrumbs.merging.comparison import compare
    from breadcrumbs.merging.task_vector import TaskVector
    from breadcrumbs.modules.switching import switch
    from breadcrumbs.tune.soup import greedy_soup

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
    "TaskVector": "breadcrumbs.merging.task_vector",
    "compare": "breadcrumbs.merging.comparison",
    "compress": "breadcrumbs.archives",
    "extract": "breadcrumbs.archives",
    "greedy_soup": "breadcrumbs.tune.soup",
    "merge": "breadcrumbs.merging.api",
    "open": "breadcrumbs.checkpoint",
    "switch": "breadcrumbs.modules.switching",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that the command line starts fast."""
    import importlib

    if name == "statistics":
        value = importlib.import_module("breadcrumbs.modules.statistics")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'breadcrumbs' has no attribute {name!r}")
    globals()[name] = value
    return value
