"""Merge fine-tunings of one foundation model into one multi-task model, exactly.

>>> import breadcrumbs
>>> breadcrumbs.merge("base", ["ft1", "ft2"], output="merged")  # doctest: +SKIP

    merge         models into one: paths, hub ids, state dicts, Torch modules, models of PEFT
    load          the named tensors of a model, read when they are asked for
    TaskVector    arithmetic on the difference of two models
    compare       how alike such differences are
    greedy_soup   the average of those models that help
    statistics    what `fisher` and `regmean` need of a module and its data
    compress      many tasks in one file; extract makes models of it
    switch        tasks in and out of a live Torch module

Every error is a BreadcrumbsError of one line: where, what was found, what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from breadcrumbs.version import __version__

if TYPE_CHECKING:
    from breadcrumbs.archives import compress, extract
    from breadcrumbs.checkpoint import load
    from breadcrumbs.errors import BreadcrumbsError
    from breadcrumbs.evaluate.switching import switch
    from breadcrumbs.merging.api import merge
    from breadcrumbs.merging.comparison import compare
    from breadcrumbs.merging.task_vector import TaskVector
    from breadcrumbs.modules import statistics
    from breadcrumbs.tune.soup import greedy_soup

__all__ = [
    "BreadcrumbsError",
    "TaskVector",
    "__version__",
    "compare",
    "compress",
    "extract",
    "greedy_soup",
    "load",
    "merge",
    "statistics",
    "switch",
]

if not TYPE_CHECKING:
    #: Where a name lives. It is imported when it is asked for: the command line starts fast.
    _HOMES = {
        "BreadcrumbsError": "errors",
        "TaskVector": "merging.task_vector",
        "compare": "merging.comparison",
        "compress": "archives",
        "extract": "archives",
        "greedy_soup": "tune.soup",
        "load": "checkpoint",
        "merge": "merging.api",
        "open": "checkpoint",
        "statistics": "modules",
        "switch": "evaluate.switching",
    }

    def __getattr__(name):
        import importlib

        if name not in _HOMES:
            from breadcrumbs.errors import suggestion

            near = "" if name.startswith("_") else suggestion(name, __all__)
            raise AttributeError(f"module 'breadcrumbs' has no attribute {name!r}.{near}")
        if name == "open":
            import warnings

            text = "breadcrumbs.open is called breadcrumbs.load, which also gives Torch tensors"
            warnings.warn(text, DeprecationWarning, stacklevel=2)
        home = importlib.import_module(f"breadcrumbs.{_HOMES[name]}")
        if name == "statistics":
            value = importlib.import_module("breadcrumbs.modules.statistics")
        else:
            value = getattr(home, name)
        if name != "open":
            globals()[name] = value
        return value

    def __dir__():
        return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
