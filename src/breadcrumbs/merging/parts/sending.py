"""All parts of a merge on a cluster of Ray: a scheduler of `merge_part`, and what it needs first.

Weights go from the inputs to the output, on storage that all machines share, and reports alone
through Ray. Every machine must read a token that this one writes beside the output, and have the
same versions and plugins, before its first part.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.checkpoint import durable
from breadcrumbs.errors import OutputError
from breadcrumbs.merging.parts import cluster
from breadcrumbs.merging.parts.dealing import Deal
from breadcrumbs.merging.parts.doing import Merge, PartReport, begun, hashed, merge_part
from breadcrumbs.merging.parts.driving import PARTS, drive, watched
from breadcrumbs.merging.parts.state import Folder
from breadcrumbs.merging.report import Report
from breadcrumbs.version import __version__

#: Seconds until a file that one machine wrote must be seen by another, as NFS needs some.
PATIENCE = 10.0


@dataclass(frozen=True)
class Needs:
    """What a machine must have to do a part of a merge. folder: where relative paths begin; token:
    the name of a file beside the output. inputs: what must be there. by, plugins: as here."""

    folder: str
    token: str
    inputs: tuple[str, ...]
    by: tuple[tuple[str, str], ...]
    plugins: tuple[tuple[str, str], ...]
    patience: float = PATIENCE


def on_ray(
    merge: Merge,
    address: str | None = None,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    verify: bool = False,
    retries: int = cluster.RETRIES,
    patience: float = PATIENCE,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Report:
    """Merge on a cluster of Ray; return the report.

    address: as for `cluster.connected`. threads, max_memory: of each part, of which as many run at
    once as machines have room for. retries: how often a part is done again whose worker or machine
    was lost. patience: seconds until a machine must see what this one wrote. Others: as for
    `merge_part`. What an interrupted merge has done is not done again.
    """
    with begun(merge) as (plan, folder):
        shards = len(Deal(plan, merge.shard_size).shards)
        total = plan.bytes_measured + plan.bytes_read
    with cluster.connected(address, threads) as found, _token(folder) as token:
        needs = _needs(merge, token, patience)
        found.everywhere(partial(check, merge), needs)
        parts = min(shards, found.slots * PARTS)
        work = partial(
            _work,
            merge,
            needs,
            parts=parts,
            threads=found.threads,
            max_memory=max_memory,
            kernel=kernel,
            verify=verify,
            sync=sync and durable.is_on(),
        )

        def each(numbers: Sequence[int]) -> Iterator[PartReport]:
            yield from found.map(work, numbers, retries)

        with watched(folder, shards, total, progress):
            return drive(merge, parts, each, kernel=kernel, sync=sync)


def _work(merge: Merge, needs: Needs, part: int, **settings: Any) -> PartReport:
    check(merge, needs)
    return merge_part(merge, part, **settings)


def check(merge: Merge, needs: Needs) -> bool:
    """Return True on a machine that can do parts of a merge; OutputError says what it lacks.

    The process goes to where relative paths begin.
    """
    here = socket.gethostname()
    with contextlib.suppress(OSError):
        os.chdir(needs.folder)
    mine = _by()
    if mine != needs.by:
        both = (", ".join(f"{name} {version}" for name, version in it) for it in (mine, needs.by))
        raise OutputError("{}: has {}, and this is {}. Install the same.".format(here, *both))
    for path, digest in needs.plugins:
        if not Path(path).exists() or hashed(Path(path)) != digest:
            raise OutputError(f"{here}: {path} is not there, or another plugin. Give all the same.")
    place = Folder(Path(merge.output)).path
    for path in (place / needs.token, *map(Path, needs.inputs)):
        until = time.monotonic() + needs.patience
        while not path.exists():
            if time.monotonic() > until:
                what = place if path.name == needs.token else path
                raise OutputError(
                    f"{here}: does not see {what}, which is here. Give inputs and an output on"
                    " storage that all machines share."
                )
            time.sleep(0.1)
    return True


def _needs(merge: Merge, token: str, patience: float) -> Needs:
    given = [merge.recipe.base, *(model.path for model in merge.recipe.models)]
    plugins = tuple((plugin, hashed(Path(plugin))) for plugin in merge.plugins)
    inputs = tuple(path for path in given if Path(path).exists())
    return Needs(os.getcwd(), token, inputs, _by(), plugins, patience)


def _by() -> tuple[tuple[str, str], ...]:
    return (("Breadcrumbs", __version__), ("NumPy", np.__version__))


@contextlib.contextmanager
def _token(folder: Folder) -> Iterator[str]:
    """Write a file beside the output for as long, and give its name."""
    place = folder.path / f".token-{secrets.token_hex(8)}"
    place.touch()
    try:
        yield place.name
    finally:
        with contextlib.suppress(OSError):
            place.unlink()
