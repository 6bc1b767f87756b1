"""A store of tasks: a model that is kept up to date, task by task.

    from breadcrumbs.store import Store

    with Store.create("shared", "base") as store:
        store.add("math", "ft-math")
        store.merge("merged")

docs/store.md says what is in the folder, and why the sum is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from breadcrumbs.store.archive import export, import_
    from breadcrumbs.store.keeping import collect, info
    from breadcrumbs.store.store import Store

__all__ = ["Store", "collect", "export", "import_", "info"]

_HOMES = {"Store": "store", "export": "archive", "import_": "archive"}
_HOMES |= {"collect": "keeping", "info": "keeping"}


def __getattr__(name: str) -> Any:
    """Import what is asked for then."""
    if name not in _HOMES:
        raise AttributeError(f"module 'breadcrumbs.store' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"breadcrumbs.store.{_HOMES[name]}"), name)
