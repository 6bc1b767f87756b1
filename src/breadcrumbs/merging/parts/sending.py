"""All parts of a merge on a cluster of Ray.

Weights go from the inputs to the output, on storage that all machines share, and reports alone
through Ray. Every machine must read a token that this one writes beside the output, and have the
same versions and plugins, before its first part.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import durable
from breadcrumbs.merging.executors import cluster, machines
from breadcrumbs.merging.executors.attempts import RETRIES
from breadcrumbs.merging.executors.machines import PATIENCE, Needs
from breadcrumbs.merging.parts.doing import Merge, PartReport, merge_part
from breadcrumbs.merging.parts.driving import PART, driven, extent
from breadcrumbs.merging.parts.state import Folder
from breadcrumbs.merging.report import Report


def on_ray(
    merge: Merge,
    address: str | None = None,
    *,
    threads: int | None = None,
    max_memory: int | None = None,
    kernel: str = "auto",
    sync: bool = True,
    verify: bool = False,
    retries: int = RETRIES,
    patience: float = PATIENCE,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Report:
    """Merge on a cluster of Ray; return the report.

    address: as for `cluster.connected`. threads, max_memory: of each part, of which as many run at
    once as machines have room for. retries: how often a part is done again whose worker or machine
    was lost. patience: seconds until a machine must see what this one wrote. Others: as for
    `merge_part`. What an interrupted merge has done is not done again.
    """
    size = extent(merge)
    given = [merge.recipe.base, *(model.path for model in merge.recipe.models)]
    with (
        cluster.connected(address, threads, retries=retries) as found,
        machines.token(size.folder.path) as token,
    ):
        needs = machines.needs(given, token=token, plugins=merge.plugins, patience=patience)
        found.everywhere(partial(check, merge), needs, PART)
        work = partial(
            _work,
            merge,
            needs,
            threads=found.threads,
            max_memory=max_memory,
            kernel=kernel,
            verify=verify,
            sync=sync and durable.is_on(),
        )
        return driven(merge, size, found, work, kernel=kernel, sync=sync, progress=progress)


def _work(merge: Merge, needs: Needs, part: int, parts: int, **settings: Any) -> PartReport:
    check(merge, needs)
    return merge_part(merge, part, parts, **settings)


def check(merge: Merge, needs: Needs) -> bool:
    """Return True on a machine that can do parts of a merge; OutputError says what it lacks."""
    name = Path(needs.token or "").name
    with contextlib.suppress(OSError):
        os.chdir(needs.folder)
    place = Folder(Path(merge.output)).path  # as it is called there
    return machines.check(replace(needs, token=os.path.join(place, name)))
