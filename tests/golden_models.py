"""The golden models, and the references that must make what the published programs made of them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from references import classical, masks, spectral
from references.common import Arrays, count_of, weights_of
from safetensors.numpy import load_file

GOLDEN = Path(__file__).parent / "golden"
EPS = float(np.finfo(np.float32).eps)


@cache
def load(name: str) -> dict[str, np.ndarray]:
    return load_file(GOLDEN / f"{name}.safetensors")


def base_and_models() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    return load("base"), [load(f"ft{t}") for t in range(3)]


def trimmed_count() -> tuple[int, int]:
    """Return the weights of the golden model and a fifth of them."""
    base = load("base")
    weights = sum(base[name].size for name in weights_of(base))
    return weights, count_of(0.2, weights)


def published_ties(merge: str) -> Callable[..., Arrays]:
    """TIES with the one entry more that its program keeps."""

    def merged(base: Arrays, models: list[Arrays]) -> Arrays:
        weights, count = trimmed_count()
        return classical.ties(base, models, density=Fraction(count + 1, weights), merge=merge)

    return merged


def per_tensor(method: Callable[..., np.ndarray]) -> Callable[..., Arrays]:
    return lambda base, models: spectral.per_tensor(method, base, models)


@cache
def golden_masks(scale: float) -> list[dict[str, np.ndarray]]:
    return masks.tall_masks(*base_and_models(), scale=scale)


PUBLISHED: dict[str, Callable[..., Arrays]] = {
    "pcb-r0p1-l1p2": spectral.pcb,
    "ties-dis-mean-k20-l1": published_ties("mean"),
    "ties-dis-sum-k20-l1": published_ties("sum"),
    "tsv_m-a1": per_tensor(spectral.tsv_m),
    "iso_c-a1": per_tensor(spectral.iso_c),
    "iso_cts-a1": per_tensor(spectral.iso_cts),
}

SCALES = {2: 0.2, 4: 0.4, 6: 0.6}

PUBLISHED |= {
    f"tall-l{digit}-task{task}": lambda base, models, scale=scale, task=task: masks.tall_mask(
        base, models, task, scale=scale
    )
    for digit, scale in SCALES.items()
    for task in (0, 2)
}

PUBLISHED |= {
    f"consensus-l{digit}-k{k}-a0p3": lambda base, models, scale=scale, k=k: masks.consensus(
        base, models, scale=scale, k=k, alpha=0.3
    )
    for digit, scale in SCALES.items()
    for k in (1, 2)
}


def conditioning(base: np.ndarray, models: list[np.ndarray]) -> float:
    """Return how far float32 may take TSV-M of a matrix.

    PyTorch's float32 SVD of these matrices is orthonormal to 13 EPS only; what a polar factor makes
    of that grows by one over the smallest singular value of the vectors side by side.
    """
    rank = spectral.tsv_rank(base.shape, len(models))
    taus = [m.astype(np.float64) - base for m in models]
    u, s, v = spectral.together([spectral.leading(tau, rank) for tau in taus])
    least = min(np.linalg.svd(u, compute_uv=False)[-1], np.linalg.svd(v, compute_uv=False)[-1])
    return 32 * EPS * s.max() / least
