"""The ways to make a family of models: in memory and on disk; and how near what comes back is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from reference import DTYPES, is_weight
from references.common import Arrays
from safetensors.numpy import save_file

from breadcrumbs import tasks
from breadcrumbs.merging import files, opening
from breadcrumbs.merging.opening import Source
from breadcrumbs.plan import USUAL, Sizes
from breadcrumbs.plan.recipe import Recipe, override

#: What checkpoints on disk are written in.
WRITTEN = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float64": np.dtype(np.float64),
}
#: Matrices, rows, a vector, a scalar, one column, numbered layers.
SHAPES = {"b": (13, 9), "a": (4, 50), "v": (31,), "s": (), "c": (7, 1), "t": (3, 4, 5)}
SHAPES |= {f"blocks.{i}.w": (2, 3) for i in (0, 3, 10)}


def taus_of(base: np.ndarray, models: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(m, np.float64) - np.asarray(base, np.float64) for m in models]


def family(
    seed: int,
    dtype: str,
    models: int,
    kind: str = "usual",
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
) -> list[Arrays]:
    """Return a base and models of some shapes, and a tensor of integers.

    kind: ``usual``: a base of quarters, which steps do not meet; ``ties``: equal magnitudes, zeros
    and sums of zero; ``normal``: a base that is no round number either.
    """
    rng = np.random.default_rng(seed)
    to = DTYPES[dtype]

    def first(shape: tuple[int, ...]) -> np.ndarray:
        values = rng.standard_normal(shape) if kind == "normal" else rng.integers(-8, 9, shape) / 4
        return np.asarray(values).astype(to)

    def moved(array: np.ndarray) -> np.ndarray:
        step = rng.standard_normal(array.shape) / 8
        if kind == "ties":
            step = rng.integers(-2, 3, array.shape) / 4
        return np.asarray(array.astype(np.float64) + step).astype(to)

    base = {name: first(shape) for name, shape in shapes.items()}
    result = [base, *({name: moved(array) for name, array in base.items()} for _ in range(models))]
    for arrays in result:
        arrays["steps"] = np.arange(3)
    return result


def merge(
    base: Source,
    models: Sequence[Source],
    *,
    sizes: Sizes = USUAL,
    output: Path | None = None,
    threads: int = 1,
    kernel: str = "auto",
    weights: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    statistics: Sequence[Source] = (),
    overrides: Sequence[Mapping[str, Any]] = (),
    method: str = "breadcrumbs",
    **given: Any,
) -> Arrays:
    """Return what `breadcrumbs.merge` does, carried out in pieces of other sizes.

    output: where to write it; then nothing comes back.
    """
    known = {field.name for field in fields(Recipe)}
    named = opening.named(models, names)
    labels = [opening.label(it, f"statistics {i}") for i, it in enumerate(statistics)]
    recipe = Recipe(
        opening.label(base, "base"),
        tuple(
            replace(model, weight=float(weight), statistics=told)
            for model, weight, told in zip(
                named, weights or [1.0] * len(named), labels or [None] * len(named), strict=True
            )
        ),
        method,
        {key: value for key, value in given.items() if key not in known},
        overrides=tuple(override(it, f"overrides[{i}]") for i, it in enumerate(overrides)),
        **{key: value for key, value in given.items() if key in known},
    )
    with opening.opened(recipe, [base, *models, *statistics], sizes) as plan:
        if output is None:
            return files.to_arrays(plan, threads=threads, kernel=kernel)[0]
        files.to_files(plan, output, threads=threads, kernel=kernel)
    return {}


def close(found: Arrays, expected: Arrays, tolerance: float) -> None:
    for name, values in expected.items():
        if is_weight(found[name]):
            size = np.abs(values).max(initial=1.0)
            off = np.abs(np.asarray(found[name], np.float64) - values).max(initial=0)
            assert off <= tolerance * size, (name, off)


def saved(folder: Path, arrays: list[Arrays]) -> list[str]:
    paths = [str(folder / f"{i}.safetensors") for i in range(len(arrays))]
    for path, mine in zip(paths, arrays, strict=True):
        save_file(mine, path)
    return paths


def save(path: Path, arrays: Arrays) -> None:
    save_file(arrays, path)


def checkpoints(
    folder: Path, dtype: str = "float32", models: int = 3, seed: int = 0, rows: int = 120
) -> list[str]:
    """Write a base and fine-tunings of it: tensors of all kinds, one of two blocks by its rows."""
    rng = np.random.default_rng(seed)
    kind = WRITTEN[dtype]
    base = {
        "embed.weight": rng.normal(0, 0.03, (rows, 300)),
        "frozen.weight": rng.normal(0, 0.03, (40, 50)),
        "layer.weight": rng.normal(0, 0.03, (64, 96)),
        "layer.bias": np.where(np.arange(64) % 3, 0.0, rng.normal(0, 0.1, 64)),
        "scale": np.asarray(0.7),
        "empty": np.zeros((0, 4)),
    }
    paths = []
    for number in range(models + 1):
        tensors = {}
        for name, weights in base.items():
            moved = weights
            if number and name != "frozen.weight":
                moved = weights + np.random.default_rng([seed, number]).normal(
                    0, 0.003, weights.shape
                )
            tensors[name] = np.asarray(moved).astype(kind)
        if number:  # zeros of the other sign, the same in all models and not
            tensors["layer.bias"][1:3] = -0.0
            tensors["layer.bias"][4] = -0.0 if number == 1 else 0.0
        tensors["steps"] = np.array([number, 7], np.int64)
        path = folder / ("base" if not number else f"ft{number}")
        path.mkdir(parents=True)
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text('{"model_type": "x"}')
        paths.append(str(path))
    return paths


def packed(folder: Path, base: str, finetuned: list[str], **options) -> list[str]:
    paths = []
    for path in finetuned:
        paths.append(str(folder / f"{Path(path).name}.safetensors"))
        tasks.pack(base, path, paths[-1], force=True, **options)
    return paths


def assert_same(one, other) -> None:
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert one[name].tobytes() == other[name].tobytes(), name
