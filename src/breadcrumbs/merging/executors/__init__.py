"""Where work is done: `--on processes:N`, `ray` or `ray://HOST:PORT`.

An `Executor` is given a function and items, has it called for each, anywhere, and yields what comes
of it. Parts of merges, scores of models and fine-tunings are such functions: only what they are
given and reports go through it. What a worker that died was at is done again by another.

attempts    what calls give, and which are made again
processes   of this machine
cluster     of Ray
machines    what a machine must have first
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from breadcrumbs.errors import RecipeError
from breadcrumbs.merging.executors import cluster
from breadcrumbs.merging.executors.attempts import RETRIES, Executor, Failed, Unit, values
from breadcrumbs.merging.executors.processes import Processes

__all__ = ["RETRIES", "Executor", "Failed", "Processes", "Unit", "named", "opened", "values"]

_CLUSTER = re.compile(r"ray://(\[[0-9a-fA-F:.%]+\]|[^\s/:\[\]]+):\d{1,5}")


def named(text: str) -> int | str | None:
    """Return what `--on` names: a number of processes, the address of a cluster, or None for the
    cluster that there is. RecipeError for anything else, and errors where Ray or it is not there.
    """
    kind, _, number = text.partition(":")
    if kind == "processes" and number.isdecimal() and 1 <= int(number) <= 1024:
        return int(number)
    if text == "ray" or _CLUSTER.fullmatch(text):
        address = None if text == "ray" else text
        cluster.reach(address)
        return address
    raise RecipeError(
        f"--on {text}: is not processes:N, such as processes:4, nor ray, nor ray://HOST:10001."
    )


@contextmanager
def opened(
    text: str,
    *,
    needed: Sequence[str] = (),
    threads: int | None = 1,
    gpus: int = 0,
    retries: int = RETRIES,
) -> Iterator[Executor]:
    """Open what `--on` names. needed: modules that all calls import. Others: as for `Cluster`."""
    where = named(text)
    if isinstance(where, int):
        with Processes(where, needed, retries) as processes:
            yield processes
    else:
        with cluster.connected(where, threads, retries=retries, gpus=gpus) as found:
            yield found
