"""Merges in parts in processes that are killed at a write or a rename, and ends them.

    python tests/parts_killing.py FOLDER OUTPUT

A process of its own that forks: only then are there no threads that a fork would tear.
FOLDER/merge.json says what is merged. A child does everything in one go and kills itself at the
k-th write, half of it done, or rename; the parent then does what is left. Prints how many of these
there are, and leaves an output in a folder beside OUTPUT's for each k that was tried.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from breadcrumbs.checkpoint import durable
from breadcrumbs.checkpoint.outfile import OutFile
from breadcrumbs.merging.parts import Merge, commit, merge_part
from breadcrumbs.merging.parts.state import Folder
from breadcrumbs.plan import Sizes
from breadcrumbs.plan.recipe import Model, Recipe

SMALL = Sizes(chunk=256, arena=1 << 12, run=32, few=1 << 11)
TRIED = 14


def everything(it: Merge) -> None:
    with durable.syncing(False):
        while merge_part(it, 1, 1, threads=1).again:
            pass
        commit(it)


def counted(left: list[int]) -> None:
    """Kill this process when so many writes and renames have been done."""

    def patched(owner: Any, name: str, half: bool = False) -> None:
        before = getattr(owner, name)

        def run(*given: Any, **more: Any) -> Any:
            # Hashes of inputs are kept as soon as these are old enough: so many or so few.
            if owner is os and not more and not any("killed-" in str(path) for path in given):
                return before(*given)
            left[0] -= 1
            if left[0] < 0:
                if half:
                    *first, data = given
                    before(*first, data[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return before(*given, **more)

        setattr(owner, name, staticmethod(run) if owner is Folder else run)

    patched(OutFile, "write", half=True)
    patched(Folder, "_put", half=True)
    for name in ("rename", "replace", "link", "unlink"):
        patched(os, name)


def main(folder: Path, output: Path) -> None:
    base, models, given, shard = json.loads((folder / "merge.json").read_text())
    given = dict(given)
    recipe = Recipe(base, tuple(map(Model, models)), given.pop("method"), given)

    def merge(name: str) -> Merge:
        return Merge(recipe, str(output.parent.with_name(f"killed-{name}") / "out"), shard,
                     sizes=SMALL)  # fmt: skip

    left = [10**9]
    if not os.fork():
        counted(left)
        everything(merge("whole"))
        (folder / "number").write_text(str(10**9 - left[0]))
        os._exit(0)
    assert os.wait()[1] == 0
    number = int((folder / "number").read_text())
    for at in sorted({*range(0, number, max(1, number // TRIED)), number - 2, number - 1}):
        child = os.fork()
        if not child:
            counted([at])
            everything(merge(str(at)))
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == -signal.SIGKILL, (at, code)
        out = Path(merge(str(at)).output)
        if not out.exists():
            everything(merge(str(at)))
        elif Path(f"{out}.partial").exists():
            commit(merge(str(at)))
        os.renames(out, folder / str(at) / "out")
    print(number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
