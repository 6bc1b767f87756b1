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
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import breadcrumbs
from benchmarks import programs
from breadcrumbs import compression, tasks
from breadcrumbs.evaluate.weights import Slots, as_torch
from breadcrumbs.sizes import human

WAYS = ("tall", "files", "emr", "tsv", "load")
#: A way to put a task in, and what the module is to hold then.
Way = tuple[Callable[[str], None], Callable[[str], Mapping[str, Any]]]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    import transformers

    config = transformers.AutoConfig.from_pretrained(options.base)
    kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
    module = kind.from_pretrained(options.base, dtype="auto").eval()
    names = [f"task {number + 1}" for number in range(len(options.models))]
    paths = dict(zip(names, options.models, strict=True))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for way in options.ways:
            result[way] = _measured(way, module, options, paths, Path(folder))
            print(f"{way}: {json.dumps(result[way])}", flush=True)
    _result(options, module, result)


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
    way: str, module: torch.nn.Module, options: Any, paths: dict[str, str], folder: Path
) -> dict[str, Any]:
    if way == "load":
        with breadcrumbs.open(options.base) as base:
            slots = Slots(module, base, whole=False)

            def load(task: str | None) -> None:
                _load(slots, options.base if task is None else paths[task])

            def loaded(task: str) -> Mapping[str, Any]:
                return breadcrumbs.open(paths[task])

            seconds = _timed(load, loaded, slots, list(paths), options.rounds)
            load(None)
        return seconds
    files = _written(way, options.base, paths, folder)
    with breadcrumbs.open(options.base) as base:
        slots = Slots(module, base, whole=False)
        gc.collect()
        began, before = time.perf_counter(), _resident()
        switch = breadcrumbs.switch(module, files, base=options.base)
        opened, held = time.perf_counter() - began, _resident() - before

        def wanted(task: str) -> Mapping[str, Any]:
            if way == "files":
                return tasks.opened(base, folder / f"{task}.safetensors")
            return compression.model(files, task, options.base)

        with switch:
            seconds = _timed(switch.put, wanted, slots, list(paths), options.rounds)
        if not all(_same(slots, name, base[name]) for name in slots.names):
            sys.exit(f"{way}: the base did not come back")
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for path in folder.glob("*.safetensors"):
        path.unlink()
    return {
        **seconds,
        "opened_in_seconds": opened,
        "memory": human(max(0, held)),
        "bytes_on_disk": size,
    }


def _written(way: str, base: str, paths: dict[str, str], folder: Path) -> Any:
    """Return the file or files that a way takes."""
    if way != "files":
        path = folder / f"{way}.safetensors"
        compression.compress(base, list(paths.values()), path, names=list(paths), method=way)
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
    names: list[str],
    rounds: int,
) -> dict[str, float]:
    """Return the seconds of a switch, on the clock and on processors.

    What the module holds is checked after the first switch to each task.
    """
    seconds: list[tuple[float, float]] = []
    for number in range(rounds + 1):  # the first one warms up
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
                sys.exit(f"{name}: the module holds something else in {wrong[:3]}")
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


def _result(options: argparse.Namespace, module: torch.nn.Module, ways: dict[str, Any]) -> None:
    result = {
        "parameters": sum(p.numel() for p in module.parameters()),
        "dtype": str(next(module.parameters()).dtype),
        "tasks": len(options.models),
        "threads": options.threads,
        "ways": ways,
        "machine": programs.machine(),
    }
    if "load" in ways:
        for clock in ("seconds", "cpu_seconds"):
            result[f"times_fewer_{clock}_than_loading"] = {
                way: ways["load"][clock] / found[clock] for way, found in ways.items()
            }
    print(json.dumps(result, indent=2))
    if options.output:
        Path(options.output).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
