"""What `--on` names: where the parts of a merge are done."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from breadcrumbs.errors import RecipeError
from breadcrumbs.merging.parts import cluster
from breadcrumbs.merging.parts.driving import on_processes
from breadcrumbs.merging.parts.sending import on_ray
from breadcrumbs.merging.report import Report

_CLUSTER = re.compile(r"ray://(\[[0-9a-fA-F:.%]+\]|[^\s/:\[\]]+):\d{1,5}")


def engine(text: str) -> Callable[..., Report]:
    """Return what does a merge on ``processes:N``, ``ray`` or ``ray://HOST:PORT``; RecipeError for
    anything else, and errors where Ray or the cluster is not there."""
    kind, _, number = text.partition(":")
    if kind == "processes" and number.isdecimal() and 1 <= int(number) <= 1024:
        return partial(on_processes, processes=int(number))
    if text == "ray":
        cluster.reach(None)
        return on_ray
    if _CLUSTER.fullmatch(text):
        cluster.reach(text)
        return partial(on_ray, address=text)
    raise RecipeError(
        f"--on {text}: is not processes:N, such as processes:4, nor ray, nor ray://HOST:10001."
    )
