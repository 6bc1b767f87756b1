"""Spectral methods on adapters: what is no direction of theirs is not one of the step."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import breadcrumbs
from breadcrumbs import tasks

SHAPE, RANK, NUMBER, NAME = (256, 192), 8, 3, "layer.weight"


def adapters(folder: Path, dtype, rank: int = RANK) -> tuple[Path, list[Path], list[np.ndarray]]:
    """Return a base, task files of adapters on it, and the products that these are."""
    rng = np.random.default_rng(0)
    base = folder / "base.safetensors"
    save_file({NAME: (rng.normal(size=SHAPE) * 0.05).astype(dtype)}, base)
    files, taus = [], []
    for t in range(NUMBER):
        path = folder / f"adapter{t}"
        path.mkdir()
        a = rng.normal(size=(rank, SHAPE[1])).astype(np.float32) * np.float32(0.02)
        b = rng.normal(size=(SHAPE[0], rank)).astype(np.float32) * np.float32(0.02)
        stem = f"base_model.model.{NAME.removesuffix('.weight')}.lora_"
        save_file({stem + "A.weight": a, stem + "B.weight": b}, path / "adapter_model.safetensors")
        said = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
        (path / "adapter_config.json").write_text(json.dumps(said))
        files.append(folder / f"{t}.safetensors")
        tasks.from_adapter(base, path, files[-1])
        taus.append(2 * b.astype(np.float64) @ a.astype(np.float64))
    return base, files, taus


def cut(matrix: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank], v[:rank]


def isotropic(taus: list[np.ndarray]) -> np.ndarray:
    u, s, v = cut(sum(taus), RANK * NUMBER)
    return s.sum() / min(SHAPE) * u @ v


def side_by_side(taus: list[np.ndarray]) -> np.ndarray:
    parts = [cut(tau, RANK) for tau in taus]
    u, v = np.hstack([p[0] for p in parts]), np.vstack([p[2] for p in parts])
    (a, _, b), (c, _, d) = (np.linalg.svd(x, full_matrices=False) for x in (u, v))
    return a @ b @ np.diag(np.concatenate([p[1] for p in parts])) @ c @ d


def star(taus: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(SHAPE)
    for tau in taus:
        u, s, v = cut(tau, RANK)
        held = np.cumsum(s)
        rank = int(np.count_nonzero(held < 0.4 * held[-1])) + 1
        total += (u[:, :rank] * s[:rank] * held[-1] / held[rank - 1]) @ v[:rank]
    return total / len(taus)


#: iso_cts has all of the sum's 24 directions in common, and no others.
SLOW = {"iso_c": isotropic, "iso_cts": isotropic, "tsv_m": side_by_side, "star": star}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("method", SLOW)
def test_the_step_is_that_of_the_products(tmp_path: Path, method: str, dtype) -> None:
    base, files, taus = adapters(tmp_path, dtype)
    # In float64 the step is the difference of the merged weights and the base's.
    merged = breadcrumbs.merge(base, files, method=method, alpha=1.0, dtype="float64")[NAME]
    step = merged - breadcrumbs.open(base)[NAME].astype(np.float64)
    expected = SLOW[method](taus)
    cosine = np.vdot(step, expected) / np.linalg.norm(step) / np.linalg.norm(expected)
    values = np.linalg.svd(step, compute_uv=False)
    rank = int(np.count_nonzero(values > 1e-9 * values[0]))
    assert cosine > 1 - 1e-9
    assert np.linalg.norm(step - expected) < 1e-6 * np.linalg.norm(expected)
    assert rank == np.linalg.matrix_rank(expected) <= RANK * NUMBER
    if method != "star":
        assert rank == RANK * NUMBER


def test_whole_finetunings_are_as_they_were(tmp_path: Path) -> None:
    """What is no product keeps its bits: the weights that it is made of, in float32."""
    base, files, _ = adapters(tmp_path, np.float32)
    whole = tasks.unpack(base, files, tmp_path / "whole")
    first = breadcrumbs.merge(base, whole, method="iso_c", alpha=1.0, dtype="float64")[NAME]
    packed = []
    for t, path in enumerate(whole):
        packed.append(tmp_path / f"packed{t}.safetensors")
        tasks.pack(base, path, packed[-1], transform="none")
    again = breadcrumbs.merge(base, packed, method="iso_c", alpha=1.0, dtype="float64")[NAME]
    assert (first == again).all()
    step = first - breadcrumbs.open(base)[NAME].astype(np.float64)
    assert np.linalg.matrix_rank(step) == min(SHAPE)  # of rounding, too: these are its directions
