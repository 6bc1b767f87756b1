"""Merging in the spaces of adapters, slowly: from dense changes, by decompositions of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Merge = Callable[[list[np.ndarray]], np.ndarray]


def _kept(s: np.ndarray) -> int:
    return int((s > 1e-9 * s.max()).sum())


def core(pairs: Sequence[tuple[np.ndarray, np.ndarray]], merge: Merge) -> np.ndarray:
    """Return the step of changes B A, merged as ``U^T B A V`` (arXiv:2509.17786, section 4)."""
    u, s, _ = np.linalg.svd(np.concatenate([b for b, _ in pairs], axis=1), full_matrices=False)
    _, t, v = np.linalg.svd(np.concatenate([a for _, a in pairs]), full_matrices=False)
    u, v = u[:, : _kept(s)], v[: _kept(t)]
    return u @ merge([u.T @ (b @ a) @ v.T for b, a in pairs]) @ v


def knots(pairs: Sequence[tuple[np.ndarray, np.ndarray]], merge: Merge) -> np.ndarray:
    """Return the step of changes of which ``S V_t`` are merged (arXiv:2410.19735, section 4)."""
    taus = [b @ a for b, a in pairs]
    u, s, v = np.linalg.svd(np.concatenate(taus, axis=1), full_matrices=False)
    k, n = _kept(s), taus[0].shape[1]
    rows = s[:k, None] * v[:k]
    return u[:, :k] @ merge([rows[:, t * n : (t + 1) * n] for t in range(len(taus))])


def ties(density: float) -> Merge:
    """Return TIES: the largest of each, of the sign of the sum, their mean."""

    def merge(taus: list[np.ndarray]) -> np.ndarray:
        masked = []
        for tau in taus:
            number = int(density * tau.size)
            least = np.sort(np.abs(tau).reshape(-1))[tau.size - number]
            masked.append(np.where(np.abs(tau) >= least, tau, 0.0))
        step = np.zeros(taus[0].shape)
        for at in np.ndindex(step.shape):
            values = [tau[at] for tau in masked]
            agree = [x for x in values if x * sum(values) > 0]
            step[at] = sum(agree) / len(agree) if agree else 0.0
        return step

    return merge


def iso_c(taus: list[np.ndarray]) -> np.ndarray:
    u, s, v = np.linalg.svd(sum(taus), full_matrices=False)
    return s.mean() * u @ v
