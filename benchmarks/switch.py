"""Time putting tasks into a live module, against loading their checkpoints with safetensors.

    python -m benchmarks.switch --base BASE --models FT1 FT2 FT3

The module is what transformers loads from BASE, in the checkpoint's dtype, on the CPU. Each round
goes once through the tasks in every way, so that each switch is from one task to the next:

* tall: an archive of TALL masks; its vector and masks are in memory.
* files: task files (Model Breadcrumbs at its defaults), in memory.
* emr, tsv: archives of these, read again each time.
* load: `safetensors.torch.load_file` of the fine-tuned checkpoint, and copies into the module, as
  `load_state_dict` makes them; the page cache is warm.

What the module holds is compared with what the archive, the task file or the checkpoint says.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import breadcrumbs
from benchmarks import programs
from breadcrumbs import archives, checkpoint, tasks
from breadcrumbs.machine import human
from breadcrumbs.modules.slots import Slots, as_torch
from breadcrumbs.modules.switching import places

WAYS = ("tall", "files", "emr", "tsv", "load")


def main() -> None:
    options = _options()
    names = [f"task {number + 1}" for number in range(len(options.models))]
    paths = dict(zip(names, options.models, strict=True))
    ways, what = {}, {}
    for way in options.ways:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            files = _written(way, options.base, paths, Path(folder))
            what, ways[way] = programs.apart(_measured, way, options, paths, files)
            print(f"{way}: {json.dumps(ways[way])}", flush=True)
    _result(options, what, ways)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="where archives and task files go")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _measured(
    way: str, options: argparse.Namespace, paths: dict[str, str], files: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the module is, and what switching its tasks in one way takes."""
    import transformers

    torch.set_num_threads(options.threads)
    config = transformers.AutoConfig.from_pretrained(options.base)
    kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
    module = kind.from_pretrained(options.base, dtype="auto").eval()
    size = sum(parameter.numel() for parameter in module.parameters())
    what = {"parameters": size, "dtype": str(next(module.parameters()).dtype)}
    with checkpoint.open(options.base) as base:
        slots = Slots(module, base, whole=False)
        if way == "load":

            def load(task: str) -> None:
                _load(slots, paths[task])

            return what, _timed(load, lambda t: checkpoint.open(paths[t]), slots, paths, options)

        def wanted(task: str) -> Mapping[str, Any]:
            if way == "files":
                return tasks.opened(base, files[list(paths).index(task)])
            return archives.model(files, task, options.base)

        places.kernels()  # the program itself is not counted
        gc.collect()
        began, before = time.perf_counter(), _resident()
        switch = breadcrumbs.switch(module, files, base=options.base)
        opened, held = time.perf_counter() - began, _resident() - before
        with switch:
            seconds = _timed(switch.put, wanted, slots, paths, options)
        if not all(_same(slots, name, base[name]) for name in slots.names):
            raise SystemExit(f"{way}: the base did not come back")
    size = sum(Path(file).stat().st_size for file in (files if way == "files" else [files]))
    memory = human(max(0, held))
    return what, {**seconds, "opened_in_seconds": opened, "memory": memory, "bytes_on_disk": size}


def _written(way: str, base: str, paths: dict[str, str], folder: Path) -> Any:
    """Write and return the file or files that a way takes."""
    if way == "load":
        return None
    if way != "files":
        path = folder / f"{way}.safetensors"
        archives.compress(base, list(paths.values()), path, names=list(paths), method=way)
        return path
    for task, model in paths.items():
        tasks.pack(base, model, folder / f"{task}.safetensors", name=task)
    return [folder / f"{task}.safetensors" for task in paths]


def _load(slots: Slots, folder: str) -> None:
    from safetensors.torch import load_file

    with torch.no_grad():
        for file in sorted(Path(folder).glob("model*.safetensors")):
            for name, tensor in load_file(file).items():
                if name in slots.names:
                    slots.names[name].tensor.copy_(tensor)


def _timed(
    put: Callable[[str], None],
    wanted: Callable[[str], Mapping[str, Any]],
    slots: Slots,
    names: Iterable[str],
    options: argparse.Namespace,
) -> dict[str, float]:
    """Return the seconds of a switch, on the clock and on processors.

    What the module holds is checked after the first switch to each task.
    """
    seconds: list[tuple[float, float]] = []
    for number in range(options.rounds + 1):  # the first one warms up
        for name in names:
            began = time.perf_counter(), time.process_time()
            put(name)
            took = time.perf_counter() - began[0], time.process_time() - began[1]
            if number:
                seconds.append(took)
                continue
            state = wanted(name)
            wrong = [key for key in slots.names if not _same(slots, key, state[key])]
            if wrong:
                raise SystemExit(f"{name}: the module holds something else in {wrong[:3]}")
    clock, processors = zip(*seconds, strict=True)
    return {
        "seconds": statistics.median(clock),
        "cpu_seconds": statistics.median(processors),
    }


def _same(slots: Slots, name: str, array: np.ndarray) -> bool:
    tensor = slots.names[name].tensor
    return torch.equal(tensor, as_torch(array).to(tensor.dtype))


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmRSS" in line)


def _result(options: argparse.Namespace, what: dict[str, Any], ways: dict[str, Any]) -> None:
    result = {**what, "tasks": len(options.models), "threads": options.threads, "ways": ways}
    if "load" in ways:
        for clock in ("seconds", "cpu_seconds"):
            result[f"times_fewer_{clock}_than_loading"] = {
                way: ways["load"][clock] / found[clock] for way, found in ways.items()
            }
    programs.publish("switch", result, options.output, hidden="")


if __name__ == "__main__":
    main()
