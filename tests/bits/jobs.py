"""What is merged, packed and stored to be remembered, as functions from a folder to results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import tasks
from breadcrumbs.methods.registry import METHODS
from breadcrumbs.store import Store

from . import family

#: By name, what returns the digest of one thing; the folder is its own.
Job = Callable[[Path], str]

#: Parameters that make the slow ones quick, and those without a default.
SETTINGS: dict[str, dict[str, Any]] = {
    "tall_mask": {"task": 1},
    "slerp": {"t": 0.3},
    "nearswap": {"t": 0.01},
    "karcher": {"max_iter": 5},
    "cabs": {"n": 2, "m": 8},
}
NUMBERS = {"arcee_fusion": 1, "nearswap": 1, "slerp": 1, "nuslerp": 2}
WITH_DATA = {"fisher", "regmean"}
UNWEIGHTED = {"arcee_fusion", "geometric_median", "karcher", "model_stock"}
RANKED = ("breadcrumbs", "magnitude", "ties", "breadcrumbs_ties", "localize_and_stitch")
#: Those that decompose or multiply matrices, whose rounding is that of the linear algebra library.
MATRICES = {"cart", "dc", "tsv_m", "iso_c", "iso_cts", "polar", "star", "wudi", "regmean"}


def digest(arrays: dict[str, Any]) -> str:
    """Return a digest of the names, dtypes, shapes and bytes of arrays."""
    hasher = blake3()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        hasher.update(f"{name} {array.dtype} {array.shape} ".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()[:16]


def digest_of_file(path: Path) -> str:
    """Return a digest of a safetensors file, but for what names the program's version."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    said = {key: value for key, value in metadata.items() if "hash" not in key}
    for key, value in said.items():
        if value.startswith("{"):
            parsed = json.loads(value)
            parsed.pop("program", None)
            parsed.pop("made_by", None)
            if "base" in parsed:
                parsed["base"].pop("name")
            said[key] = json.dumps(parsed)
    hasher = blake3(json.dumps([header, said]).encode())
    hasher.update(raw[8 + size :])
    return hasher.hexdigest()[:16]


def _merge(dtype: str, method: str, folder: Path, **settings: Any) -> str:
    base, models = family.family(dtype)
    models = models[: NUMBERS.get(method, len(models))]
    if "weights" in settings:
        settings["weights"] = settings["weights"][: len(models)]
    given = {**SETTINGS.get(method, {}), **settings}
    return digest(breadcrumbs.merge(base, models, method=method, **given))


def _written(dtype: str, folder: Path) -> list[str]:
    """Write the family as files and return their paths, the base's first."""
    base, models = family.family(dtype)
    paths = []
    for name, arrays in zip(["base", "a", "b", "c"], [base, *models], strict=True):
        paths.append(str(folder / f"{name}.safetensors"))
        save_file(arrays, paths[-1])
    return paths


def _packed(dtype: str, encoding: str, transform: str, folder: Path) -> str:
    """Pack every model; return a digest of the files and of what their merges make."""
    base, *models = _written(dtype, folder)
    files = []
    for model in models:
        files.append(str(Path(model).with_suffix("")) + "-task.safetensors")
        settings = {"density": 0.3} if transform != "none" else {}
        tasks.pack(base, model, files[-1], encoding=encoding, transform=transform, **settings)
    hasher = blake3("".join(digest_of_file(Path(file)) for file in files).encode())
    merges: list[tuple[str, dict[str, Any]]] = [
        ("task_arithmetic", {"alpha": 0.5}),
        ("task_arithmetic", {"alpha": 0.5, "weights": [1, 0.7, -0.2]}),
    ]
    if transform == "none":
        merges += [("dare_linear", {"p": 0.5}), ("breadcrumbs", {"alpha": 1}), ("ties", {})]
    else:
        merges += [("bottom_masking", {"alpha": 1}), ("bottom_masking", {})]
    for method, settings in merges:
        merged = breadcrumbs.merge(base, files, method=method, **settings)
        hasher.update(digest(merged).encode())
    return hasher.hexdigest()[:16]


def _stored(dtype: str, folder: Path) -> str:
    """Add three tasks to a store, remove one, weight one; return a digest of all merges."""
    base, *models = _written(dtype, folder)
    hasher = blake3()
    with Store.create(folder / "store", base, method="breadcrumbs", alpha=0.7) as store:
        for name, model in zip("abc", models, strict=True):
            store.add(name, model)
        store.set("b", 0.5)
        store.remove("a")
        for at in (2, 3, 4, 5):
            out = folder / f"at{at}.safetensors"
            store.merge(out, at=at)
            with breadcrumbs.open(out) as found:
                arrays = {name: tensor.read() for name, tensor in found.tensors.items()}
            hasher.update(digest(arrays).encode())
    return hasher.hexdigest()[:16]


def _archived(dtype: str, method: str, folder: Path) -> str:
    """Compress the models; return a digest of the file and of each model out of it."""
    base, *models = _written(dtype, folder)
    path = folder / "all.safetensors"
    breadcrumbs.compress(base, models, path, method=method)
    hasher = blake3(digest_of_file(path).encode())
    for task in "abc":
        with breadcrumbs.open(base) as opened:
            arrays = {name: tensor.read() for name, tensor in opened.tensors.items()}
        out = folder / f"{task}-again.safetensors"
        breadcrumbs.extract(path, task, out, base=base)
        with breadcrumbs.open(out) as found:
            arrays = {name: tensor.read() for name, tensor in found.tensors.items()}
        hasher.update(digest(arrays).encode())
    return hasher.hexdigest()[:16]


def _onto(dtype: str, method: str, folder: Path) -> str:
    base, (onto, *models) = family.family(dtype)
    models = models[: NUMBERS.get(method, len(models))]
    given = {**SETTINGS.get(method, {})}
    if "alpha" in METHODS[method].parameters:
        given["alpha"] = 0.2
    return digest(breadcrumbs.merge(base, models, method=method, onto=onto, **given))


def _compared(dtype: str, folder: Path) -> str:
    base, models = family.family(dtype)
    made = breadcrumbs.compare(base, models, transform="breadcrumbs")
    rows = made.cosine, made.pearson, made.euclid, made.conflicts, made.norms, made.kept
    return digest({str(i): row for i, row in enumerate(rows)})


OVERRIDES = [{"tensors": "layers.0.*", "alpha": 0.25}, {"tensors": "*.bias", "alpha": 1.5}]
SMALL = ["embed.weight", "lm_head.weight"]


def jobs(every: bool) -> Iterator[tuple[str, Job]]:
    """Yield names and jobs; those that the tests have time for, or every one."""
    narrow = ("float32", "bfloat16")
    for method, it in METHODS.items():
        if method in WITH_DATA:
            continue
        for dtype in family.DTYPES if every or method in RANKED else narrow:
            yield f"{method} {dtype}", partial(_merge, dtype, method)
            if method not in UNWEIGHTED:
                yield (
                    f"{method} {dtype} weights",
                    partial(_merge, dtype, method, weights=[1, 0.7, -0.2]),
                )
        if "alpha" in it.parameters:
            yield (
                f"{method} bfloat16 overrides",
                partial(_merge, "bfloat16", method, overrides=OVERRIDES),
            )
        yield f"{method} bfloat16 onto", partial(_onto, "bfloat16", method)
        if "granularity" in it.parameters:
            for unit in ("row", "model"):
                for dtype in family.DTYPES if every else narrow:
                    yield (
                        f"{method} {dtype} {unit}",
                        partial(_merge, dtype, method, granularity=unit),
                    )
        if "rescale" in it.parameters and "granularity" in it.parameters:
            yield f"{method} float32 l1", partial(_merge, "float32", method, rescale="l1")
    for pair in ("breadcrumbs+elect", "none+elect", "dare+consensus", "magnitude+tsv_m"):
        yield f"{pair} float32", partial(_merge, "float32", pair)
    for dtype in family.DTYPES if every else narrow:
        for encoding in ("exact", "int8", "ternary", "tvq", "tsv"):
            yield f"pack {dtype} {encoding}", partial(_packed, dtype, encoding, "none")
        yield f"pack {dtype} magnitude", partial(_packed, dtype, "exact", "magnitude")
        yield f"store {dtype}", partial(_stored, dtype)
        for method in ("tall", "emr", "tsv"):
            yield f"compress {dtype} {method}", partial(_archived, dtype, method)
        yield f"compare {dtype}", partial(_compared, dtype)


def of_matrices(name: str) -> bool:
    """Return whether the bits of a job are those of a linear algebra library too."""
    parts = set(name.replace("+", " ").split())
    return bool(parts & (MATRICES | {"tsv", "compare"}))
