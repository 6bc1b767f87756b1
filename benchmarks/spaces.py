"""Time merges of adapters in their own space beside merges of their dense changes, in one run.

    python -m benchmarks.spaces --output benchmarks/results/spaces.json

The base has random weights in bfloat16, in the shapes of the layers of SmolLM2-135M, or others;
the adapters, of random numbers, are for all seven matrices of a layer. For each method and round,
three merges one after the other, on one thread: of the weights (`full`), of coordinates (`core`),
both into a model in memory; and `core` written as an adapter (`lora`), which touches no weight of
the base. The fastest round counts.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before NumPy is imported
    for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[_name] = "1"

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import breadcrumbs


def shapes(hidden: int, inner: int, small: int) -> dict[str, tuple[int, int]]:
    """Return the matrices of a layer. small: rows of keys and values."""
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (small, hidden),
        "self_attn.v_proj": (small, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def main() -> None:
    options = _options()
    sizes = shapes(options.hidden, options.inner, options.small)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        base, adapters = _family(Path(folder), sizes, options)
        seconds: dict[str, dict[str, float]] = {}
        for method in options.methods:
            ways = _ways(base, adapters, method, Path(folder))
            seconds[method] = {}
            for _ in range(options.rounds):
                for name, way in ways.items():
                    began = time.perf_counter()
                    way()
                    took = time.perf_counter() - began
                    seconds[method][name] = min(took, seconds[method].get(name, took))
            row = seconds[method]
            times = ", ".join(f"{name} {took:.3f} s" for name, took in row.items())
            ratios = ", ".join(f"{row['full'] / row[name]:.1f}" for name in ("core", "lora"))
            print(f"{method}: {times}; times as fast: {ratios}", flush=True)
    if options.output:
        said = {key: value for key, value in vars(options).items() if key != "output"}
        result = {"machine": platform.machine(), "options": said, "seconds": seconds}
        Path(options.output).write_text(json.dumps(result, indent=2, default=str) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--inner", type=int, default=1536)
    parser.add_argument("--small", type=int, default=192)
    parser.add_argument("--adapters", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["ties", "tsv_m", "iso_c", "wudi"])
    parser.add_argument("--folder", help="where the models go; default: the system's")
    parser.add_argument("--output", help="JSON file to write")
    return parser.parse_args()


def _family(folder: Path, sizes: dict[str, Any], options: Any) -> tuple[Path, list[Path]]:
    """Write a base and adapters of it; return their paths."""
    rng, tensors = np.random.default_rng(0), {}
    names = [f"model.layers.{i}.{name}" for i in range(options.layers) for name in sizes]
    for name in names:
        weight = rng.normal(size=_shape(sizes, name)) * 0.05
        tensors[f"{name}.weight"] = weight.astype(ml_dtypes.bfloat16)
    save_file(tensors, folder / "base.safetensors")
    paths = []
    for t in range(options.adapters):
        tensors = {}
        for name in names:
            m, n = _shape(sizes, name)
            a, b = rng.normal(size=(options.rank, n)), rng.normal(size=(m, options.rank)) * 0.02
            tensors[f"base_model.model.{name}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"base_model.model.{name}.lora_B.weight"] = b.astype(np.float32)
        paths.append(folder / f"adapter{t}")
        paths[t].mkdir()
        save_file(tensors, paths[t] / "adapter_model.safetensors")
        said = {"peft_type": "LORA", "r": options.rank, "lora_alpha": options.rank}
        (paths[t] / "adapter_config.json").write_text(json.dumps(said))
    return folder / "base.safetensors", paths


def _shape(sizes: dict[str, Any], name: str) -> tuple[int, int]:
    return sizes[".".join(name.split(".")[3:])]


def _ways(
    base: Path, adapters: list[Path], method: str, folder: Path
) -> dict[str, Callable[[], Any]]:
    """Return the three merges by name."""
    settings: dict[str, Any] = {"method": method, "threads": 1}
    lora = {"space": "core", "to": "lora", "output": folder / "out", "force": True, "sync": False}
    return {
        "full": lambda: breadcrumbs.merge(base, adapters, **settings),
        "core": lambda: breadcrumbs.merge(base, adapters, space="core", **settings),
        "lora": lambda: breadcrumbs.merge(None, adapters, **settings, **lora),
    }


if __name__ == "__main__":
    main()
