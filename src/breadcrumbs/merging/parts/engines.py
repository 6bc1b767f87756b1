"""What `--on` names: where the parts of a merge are done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from breadcrumbs.merging import executors
from breadcrumbs.merging.parts.driving import on_processes
from breadcrumbs.merging.parts.sending import on_ray
from breadcrumbs.merging.report import Report


def engine(text: str) -> Callable[..., Report]:
    """Return what does a merge on ``processes:N``, ``ray`` or ``ray://HOST:PORT``; RecipeError for
    anything else, and errors where Ray or the cluster is not there."""
    where = executors.named(text)
    if isinstance(where, int):
        return partial(on_processes, processes=where)
    return on_ray if where is None else partial(on_ray, address=where)
