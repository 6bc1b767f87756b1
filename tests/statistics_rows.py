"""One row a method that takes statistics: how they are made, and its slow reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from references import classical

Arrays = dict[str, np.ndarray]
SHAPES = {"w": (13, 9), "q": (8, 8), "c": (9, 13), "v": (31,), "s": (), "t": (3, 4, 5)}
#: Gram matrices: of Linear, of a square Linear, and of Conv1D.
INPUTS = {"w": 9, "q": 8, "c": 9}


def fishers(seed: int) -> list[Arrays]:
    """Return Fisher information of three models, 0 in some entries of one, some of all models."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(3):
        arrays = {k: rng.exponential(1e-9, s) for k, s in SHAPES.items()}
        result.append({k: np.asarray(v, np.float32) for k, v in arrays.items()})
        result[-1]["v"][:3] = 0
        result[-1]["w"][rng.random(SHAPES["w"]) < 0.3] = 0
        result[-1]["head"] = np.ones(5, np.float32)  # of what is not merged
    return result


def grams(seed: int, rows: int = 20) -> list[Arrays]:
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(3):
        inputs = {k: rng.standard_normal((rows, size)) for k, size in INPUTS.items()}
        result.append({k: (x.T @ x / rows).astype(np.float32) for k, x in inputs.items()})
    return result


def fisher(
    base: Arrays, models: Sequence[Arrays], statistics, weights, normalize="none", added=0.0
) -> Arrays:
    statistics = [{k: np.asarray(f[k], np.float64) + added for k in SHAPES} for f in statistics]
    if normalize == "length":
        flat = [np.concatenate([f[k].reshape(-1) for k in SHAPES]) for f in statistics]
        lengths = [float(np.linalg.norm(one)) for one in flat]
        statistics = [
            {k: v / length for k, v in f.items()}
            for f, length in zip(statistics, lengths, strict=True)
        ]
    return {
        k: classical.fisher([m[k] for m in models], [f[k] for f in statistics], weights=weights)
        for k in SHAPES
    }


def regmean(base: Arrays, models: Sequence[Arrays], statistics, weights, turned=(), **s) -> Arrays:
    result = {}
    for k in SHAPES:
        mine = [np.asarray(m[k], np.float64) for m in models]
        if k not in statistics[0]:
            result[k] = classical.weighted_mean(mine, weights)
            continue
        given = [g[k] for g in statistics]
        if k == "c" or k in turned:
            mine = [w.T for w in mine]
        found = classical.regmean(mine, given, weights=weights, **s)
        result[k] = found.T if k == "c" or k in turned else found
    return result


@dataclass(frozen=True)
class Row:
    """make: statistics from a seed. reference: the slow version. settings: to try."""

    make: Any
    reference: Any
    settings: Sequence[dict[str, Any]] = ({},)
    exact: bool = True


TABLE = {
    "fisher": Row(
        fishers, fisher, [{}, {"normalize": "length"}, {"normalize": "length", "added": 1e-9}]
    ),
    "regmean": Row(
        grams,
        regmean,
        [{}, {"off_diagonal": 0.5}, {"off_diagonal": 1, "ridge": 0.1}, {"ridge": 0}],
        exact=False,
    ),
}
