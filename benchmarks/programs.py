"""The programs that are timed: this one, mergekit 0.1.5, and how a process is measured."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from breadcrumbs.methods.parameters import AUTO, defaults
from breadcrumbs.methods.table import METHODS

ALPHA = 0.4


@dataclass(frozen=True)
class Job:
    """One method with the same settings in both programs.

    ours: flags. theirs: parameters of each model; None where mergekit has no such method. models:
    how many it takes, 0 for any. name: what mergekit calls it; settings: its parameters for all.
    """

    ours: tuple[str, ...] = ()
    theirs: dict[str, Any] | None = None
    models: int = 0
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


def _p(**values: Any) -> tuple[str, ...]:
    return tuple(part for key, value in values.items() for part in ("-p", f"{key}={value}"))


ONE = {"weight": 1.0}
CUT = {"weight": ALPHA, "density": 0.09, "gamma": 0.01}
KEPT = {"weight": 1.0, "density": 0.1}
#: By the names of our methods. Methods of no entry here are timed alone, with their defaults and a
#: number for alpha: finding one is another pass.
JOBS = {
    "breadcrumbs": Job(_p(beta=0.9, gamma=0.99, alpha=ALPHA), CUT),
    "breadcrumbs_ties": Job(_p(beta=0.9, gamma=0.99, alpha=ALPHA), CUT),
    "task_arithmetic": Job(_p(alpha=ALPHA), {"weight": ALPHA}),
    # The paper's unit is the model, mergekit's the tensor: both are the tensor here.
    "ties": Job(_p(granularity="tensor"), {"weight": 1.0, "density": 0.2}),
    "dare_linear": Job(_p(p=0.9, alpha=1), KEPT),
    "dare_ties": Job(_p(p=0.9, alpha=1, merge="sum"), KEPT),
    "della_linear": Job(_p(density=0.1, epsilon=0.05, alpha=1), {**KEPT, "epsilon": 0.05}),
    "della": Job(_p(density=0.1, epsilon=0.05, alpha=1, merge="sum"), {**KEPT, "epsilon": 0.05}),
    "average": Job((), ONE, name="linear"),
    "model_stock": Job((), {}),
    "karcher": Job((), {}),
    "multislerp": Job((), ONE),
    "sce": Job((), {}, settings={"select_topk": 1.0}),
    "nuslerp": Job((), ONE, models=2),
    "tall_mask": Job(_p(task=1)),
    "emr": Job(_p(task=1)),
    "nearswap": Job((), {}, models=1, settings={"t": 0.001}),
    "slerp": Job((), {}, models=1, settings={"t": 0.5}),
}


def job(method: str) -> Job:
    automatic = defaults(METHODS[method].parameters).get("alpha") == AUTO
    return JOBS.get(method, Job(_p(alpha=1) if automatic else ()))


def ours(
    method: str, program: str | None, base: Path, models: list[Path], output: Path, *more: str
) -> list[str]:
    """Return the command of this program. program: default: beside this Python."""
    start = str(program or Path(sys.executable).with_name("breadcrumbs"))
    command = [start, "merge", str(base), *map(str, models), "-o", str(output)]
    return [*command, "-m", method, *job(method).ours, *more, "--json"]


def mergekit(
    method: str, venv: str, folder: Path, dtype: str, base: Path, models: list[Path], output: Path
) -> list[str]:
    """Return mergekit's command for the same. venv: its folder; ``make``: set one up, once."""
    home = folder / "mergekit-venv" if venv == "make" else Path(venv)
    if not (home / "bin" / "mergekit-yaml").exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        for package in ("torch==2.13.0", "mergekit==0.1.5"):
            subprocess.run([home / "bin" / "pip", "install", "--quiet", package], check=True)
    its = job(method)
    config: dict[str, Any] = {
        "merge_method": its.name or method,
        "base_model": str(base),
        "models": [{"model": str(model), "parameters": its.theirs} for model in models],
        "parameters": its.settings,
        "dtype": dtype,
    }
    if method in ("slerp", "nearswap"):
        config["models"] = [{"model": str(base)}, {"model": str(models[0])}]
    if method in ("average", "karcher"):
        del config["base_model"]
    path = folder / f"mergekit-{method}.json"  # JSON is YAML
    path.write_text(json.dumps(config))
    flags = ["--quiet", "--no-copy-tokenizer"]
    return [str(home / "bin" / "mergekit-yaml"), str(path), str(output), *flags]


def run(command: list[str], output: Path, cold: bool) -> dict[str, float]:
    """Run a process; return its seconds on the clock and on processors, and its peak memory."""
    for old in (output, output.with_name(output.name + ".partial")):
        shutil.rmtree(old, ignore_errors=True)
        old.unlink(missing_ok=True)
    os.sync()
    if cold:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    log = output.with_name("log.txt")
    with log.open("wb") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1e3 * 1.024,
    }


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function gives in a process of its own, whose memory is nobody else's."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def publish(name: str, result: dict[str, Any], output: str | None, hidden: str) -> None:
    """Print what a benchmark found, all but ``hidden``, and write it as JSON, if told where to.

    The machine, and the command, with PATH for its paths, stand beside the figures.
    """
    flags = " ".join("PATH" if one.startswith("/") else one for one in sys.argv[1:])
    result = {**result, "machine": machine(), "command": f"python -m benchmarks.{name} {flags}"}
    print(json.dumps({key: value for key, value in result.items() if key != hidden}, indent=2))
    if output:
        Path(output).write_text(json.dumps(result, indent=2) + "\n")


def machine() -> dict[str, object]:
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
