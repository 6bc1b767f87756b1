"""How one merge walks through the modules: `python -m benchmarks.walk` from a checkout.

One tensor of a base and two fine-tunings is merged in one process on one thread, from the command
line to the written byte, and every call of a function of `breadcrumbs` is noted, with the module
that it came from; not those while a module is imported. Arguments are given to `breadcrumbs merge`
in place of `-m breadcrumbs -p alpha=1`, but for `--size`, the lines of the tensor. An older
checkout is walked with PYTHONPATH=ITS/src before `python benchmarks/walk.py`. docs/architecture.md
has what this prints.

A return is a call that comes back up: into a module that waits further up the stack, or, by the
floors of tests/test_architecture.py, into a module above the one that it comes from.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import breadcrumbs

HOME = os.path.dirname(breadcrumbs.__file__) + os.sep
COMMAND = ["merge", "base", "ft1", "ft2", "-o", "out", "--threads", "1"]
METHOD = ["-m", "breadcrumbs", "-p", "alpha=1"]
#: What merges one segment and hands it on to be written, by module and function; the second as it
#: was called before the engine was a package, so that older checkouts are walked too.
SEGMENT = {("engine.consumers", "merge"), ("engine", "written")}
Call = tuple[str, str]


def module_of(frame: FrameType) -> str | None:
    """Return the module of a frame, after ``breadcrumbs.``; None of one that is not in it."""
    path = frame.f_code.co_filename
    if not path.startswith(HOME):
        return None
    return path[len(HOME) : -len(".py")].replace(os.sep, ".").removesuffix(".__init__")


def stack(frame: FrameType | None) -> Iterator[tuple[str, str]]:
    """Yield the module and function of each frame of the package, the innermost first."""
    while frame is not None:
        module = module_of(frame)
        if module is not None:
            yield module, frame.f_code.co_name
        frame = frame.f_back


class Walk:
    """What is noted of all calls: those of the whole merge, and those in the merge of a segment.

    calls, inside: from which module into which, how often. back: the calls of ``inside`` into a
    module that waits further up. way: the modules from the command to the first kernel of the
    segment.
    """

    def __init__(self) -> None:
        self.calls: Counter[Call] = Counter()
        self.inside: Counter[Call] = Counter()
        self.back: Counter[Call] = Counter()
        self.way: list[str] = []
        self._started: dict[int, list[tuple[str, str]]] = {}
        self._main = threading.main_thread().ident

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "call" or module_of(frame) is None:
            return
        frames = [*stack(frame), *self._before()]
        if any(name == "<module>" for _, name in frames):
            return
        module, caller = frames[0][0], frames[1][0] if frames[1:] else frames[0][0]
        self.calls[caller, module] += 1
        at = next((i for i, it in enumerate(frames) if it in SEGMENT), None)
        if not at:
            return
        self.inside[caller, module] += 1
        waiting = {name for name, _ in frames[1 : at + 1]} - {caller}
        if module != caller and module in waiting:
            self.back[caller, module] += 1
        if module.startswith("kernels.") and not self.way:
            self.way = [name for name, _ in reversed(frames)]

    def _before(self) -> list[tuple[str, str]]:
        """Return what called this thread, if it is not the main one."""
        thread = threading.get_ident()
        if thread == self._main:
            return []
        if thread not in self._started:
            self._started[thread] = list(stack(sys._current_frames().get(self._main or 0)))
        return self._started[thread]


def walked(arguments: Sequence[str]) -> Walk:
    """Merge as the command with these arguments does, and return what was noted."""
    from breadcrumbs.cli import main

    walk = Walk()
    threading.setprofile(walk)
    sys.setprofile(walk)
    try:
        main([*COMMAND, *arguments], standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return walk


def family(size: int) -> None:
    """Write a base and two fine-tunings of one square matrix into the folder that is current."""
    draws = np.random.default_rng(0)
    base = draws.standard_normal((size, size)).astype(np.float32)
    for name in ("base", "ft1", "ft2"):
        step = draws.standard_normal(base.shape) if name != "base" else np.zeros(base.shape)
        Path(name).mkdir()
        weight = {"model.layers.0.mlp.down_proj.weight": (base + 0.01 * step).astype(np.float32)}
        save_file(weight, Path(name) / "model.safetensors")


def floors() -> dict[str, tuple[int, int]] | None:
    """Return the floor of every module and, in the engine, that inside it; None: there are none.

    As tests/test_architecture.py has them; the lowest are the largest numbers.
    """
    path = Path(HOME).parents[1] / "tests" / "test_architecture.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location("floors", path)
    assert spec is not None and spec.loader is not None
    test = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(test)
    rooms = {room: number for number, some in enumerate(test.FLOORS) for room in some}
    inner = {room: number for number, some in enumerate(test.ENGINE) for room in some}
    found = {}
    for name in test._modules():
        first, *rest = name.split(".")
        inside = inner.get(rest[0], -1) if first == "engine" and rest else -1
        found[name] = rooms.get(first, -1), inside
    return found


def upward(calls: Counter[Call], floor: dict[str, tuple[int, int]]) -> Counter[Call]:
    """Return the calls from a module into one on a higher floor."""
    top = (-1, -1)  # of the doors
    return Counter(
        {it: n for it, n in calls.items() if floor.get(it[1], top) < floor.get(it[0], top)}
    )


def shown(calls: Counter[Call]) -> str:
    """Return calls as lines."""
    return "".join(f"  {a} -> {b}: {number}\n" for (a, b), number in calls.most_common())


def rooms(names: Iterable[str]) -> str:
    """Return how many modules there are, and how many of each package."""
    found = Counter(name.split(".")[0] for name in names)
    return f"{found.total()}: " + ", ".join(f"{room} {n}" for room, n in sorted(found.items()))


def report(walk: Walk) -> str:
    """Return what was noted as text."""
    inside = {module for _, module in walk.inside}
    way = [name for i, name in enumerate(walk.way) if not i or name != walk.way[i - 1]]
    packages = list(dict.fromkeys(name.split(".")[0] for name in way))
    text = f"modules entered: {rooms({module for _, module in walk.calls})}\n"
    text += f"in the merge of a segment: {rooms(inside)}\n  {' '.join(sorted(inside))}\n"
    text += f"from the command to the first kernel:\n  {' -> '.join(way)}\n"
    text += f"rooms between: {len(packages) - 2}: {', '.join(packages[1:-1])}\n"
    text += f"returns in the merge of a segment: {walk.back.total()}\n{shown(walk.back)}"
    known = floors()
    if known is not None:
        for where, calls in (("in the merge of a segment", walk.inside), ("in all", walk.calls)):
            back = upward(calls, known)
            text += f"calls to a higher floor {where}: {back.total()}\n{shown(back)}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", type=int, default=64)
    options, arguments = parser.parse_known_args()
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            family(options.size)
            print(report(walked(arguments or METHOD)), end="")
        finally:
            os.chdir(here)


if __name__ == "__main__":
    main()
