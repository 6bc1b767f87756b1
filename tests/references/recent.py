"""The methods of 2024 to 2026, from their papers: entries, medians, and directions of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from references.common import (
    Arrays,
    added,
    count_of,
    difference,
    flat,
    mean,
    shaped,
    weights_of,
    wide,
)
from references.spectral import leading, mean_step, polar, triplets

# --- entry by entry ----------------------------------------------------------------------------


def columns(taus: Sequence[np.ndarray]) -> list[tuple[float, ...]]:
    """Return what all models have at each entry, in C order."""
    return list(zip(*(tau.reshape(-1).tolist() for tau in taus), strict=True))


def magmax(
    base: np.ndarray, taus: Sequence[np.ndarray], *, alpha: float = 0.5, ties: str = "positive"
) -> np.ndarray:
    """Return base + alpha * the largest task vector of each entry.

    Marczak et al., ECCV 2024, arXiv:2407.06322. Of equal magnitudes the positive, or the ``later``.
    """

    def key(at: tuple[int, float]) -> tuple[float, float]:
        return abs(at[1]), (at[1] if ties == "positive" else at[0])

    step = [max(enumerate(column), key=key)[1] for column in columns(taus)]
    return wide(base) + alpha * np.reshape(step, base.shape)


def negmerge(base: np.ndarray, taus: Sequence[np.ndarray], *, alpha: float = 1.0) -> np.ndarray:
    """Return base + alpha * the mean where all signs are one and none is 0.

    Kim et al., ICML 2025, arXiv:2410.05583, which subtracts.
    """
    step = []
    for column in columns(taus):
        agree = len({math.copysign(1, x) for x in column}) == 1 and 0 not in column
        step.append(math.fsum(column) / len(column) if agree else 0.0)
    return wide(base) + alpha * np.reshape(step, base.shape)


def ram(
    base: np.ndarray,
    taus: Sequence[np.ndarray],
    weights: Sequence[float],
    *,
    least: float = 0.0,
    alpha: float = 1.0,
    r: float = 0.0,
    most: float = 0.2,
) -> np.ndarray:
    """Return base + alpha * the mean over the models that changed an entry.

    Reinforced Agent Merging, arXiv:2601.13572. r, most: of RAM+: entries of one model alone times
    ``1 + r min(shared / own, most)``.
    """
    every = columns(taus)
    owners = [[t for t, x in enumerate(column) if abs(x) > least] for column in every]
    growth = []
    for t in range(len(taus)):
        own = sum(mine == [t] for mine in owners)
        shared = sum(t in mine and len(mine) > 1 for mine in owners)
        below = max(own, least)
        ratio = shared / below if below else math.inf if shared else 0
        growth.append(1 + r * min(ratio, most))
    step = []
    for column, mine in zip(every, owners, strict=True):
        total = math.fsum(weights[t] * column[t] for t in mine) / max(1, len(mine))
        step.append(total * (growth[mine[0]] if len(mine) == 1 else 1))
    return wide(base) + alpha * np.reshape(step, base.shape)


def arcee_fusion(base: np.ndarray, model: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
    """Return base + alpha * the task vector where ``|tau| KL`` is not below median + 1.5 IQR.

    As mergekit has it; in float64, and over all entries.
    """
    if not base.size:
        return wide(base)

    def shares(row: Sequence[float]) -> list[float]:
        powers = [math.exp(x - max(row)) for x in row]
        return [x / math.fsum(powers) + 1e-8 for x in powers]

    length = base.shape[-1] if base.ndim else 1
    rows = zip(wide(model).reshape(-1, length), wide(base).reshape(-1, length), strict=True)
    scores = []
    for mine, other in rows:
        p, q = shares(mine.tolist()), shares(other.tolist())
        moved = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        scores += [abs(a - b) * moved for a, b in zip(mine.tolist(), other.tolist(), strict=True)]
    ranked, last = sorted(scores), len(scores) - 1
    low, middle, high = (ranked[int(Fraction(q) * last)] for q in ("1/4", "1/2", "3/4"))
    keep = np.reshape(np.array(scores) >= middle + 1.5 * (high - low), base.shape)
    return wide(base) + alpha * np.where(keep, difference(base, model), 0)


# --- from distances and angles -----------------------------------------------------------------


def geometric_median(
    base: np.ndarray, models: Sequence[np.ndarray], weights: Sequence[float], *, steps: int = 2000
) -> np.ndarray:
    """Return base + the point whose weighted distances to the task vectors have the least sum.

    Plain Weiszfeld steps; where one model has the median itself, the model.
    """
    taus = [difference(base, m).reshape(-1) for m in models]
    for tau in taus:
        pull, own = np.zeros(tau.size), 0.0
        for other, w in zip(taus, weights, strict=True):
            far = math.dist(tau, other)
            own += w if not far else 0
            pull += w * (other - tau) / far if far else 0
        if math.hypot(*pull) <= own:
            return wide(base) + tau.reshape(base.shape)
    middle = np.average(taus, axis=0, weights=weights)
    for _ in range(steps):
        shares = [w / math.dist(tau, middle) for tau, w in zip(taus, weights, strict=True)]
        middle = np.average(taus, axis=0, weights=shares)
    return wide(base) + middle.reshape(base.shape)


def awd(
    base: Arrays,
    models: Sequence[Arrays],
    *,
    steps: int = 300,
    rate: float = 0.01,
    penalty: float = 0.1,
    alpha: float = 0.3,
) -> dict[str, np.ndarray]:
    """Return base + alpha * the sum of ``tau_t - d``, the loop on ``d`` itself, entry by entry.

    Xiong et al., 2024, arXiv:2411.18729: gradient descent from 0 on the mean magnitude of the
    cosines of all pairs of ``tau_t - d``, plus ``penalty |d|``; lengths in units of the root mean
    square of the task vectors'.
    """
    names = weights_of(base)
    taus = [flat(m, names) - flat(base, names) for m in models]
    unit = math.sqrt(math.fsum(float(tau @ tau) for tau in taus) / len(taus)) or 1.0
    scaled, d = [tau / unit for tau in taus], np.zeros(taus[0].size)
    pairs = [(i, j) for i in range(len(taus)) for j in range(len(taus)) if i != j]
    for _ in range(steps):
        slope = penalty * d / np.linalg.norm(d) if d.any() else np.zeros(d.size)
        left = [tau - d for tau in scaled]
        sizes = [float(np.linalg.norm(x)) for x in left]
        for i, j in pairs:
            if not sizes[i] or not sizes[j]:
                continue
            cosine = float(left[i] @ left[j]) / (sizes[i] * sizes[j])
            towards = cosine * (left[i] / sizes[i] ** 2 + left[j] / sizes[j] ** 2)
            towards -= (left[i] + left[j]) / (sizes[i] * sizes[j])
            slope += np.sign(cosine) * towards / len(pairs)
        d = d - rate * slope
    total = np.sum([tau - unit * d for tau in taus], axis=0)
    return added(base, shaped(total, base, names), alpha)


# --- directions of matrices --------------------------------------------------------------------


def cart(
    base: np.ndarray, models: Sequence[np.ndarray], *, rank: Any = 0.12, scale: float = 2.0
) -> np.ndarray:
    """Return the mean, and ``scale`` times the leading triplets of what each model is off it.

    Choi et al., 2024, arXiv:2412.12153.
    """
    middle = mean_step(base, models)
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + middle
    taus = [difference(base, m) for m in models]
    number = max(1, count_of(rank, min(base.shape)))
    off = [leading(tau - middle, number, 1e-11 * float(np.linalg.norm(middle))) for tau in taus]
    return wide(base) + middle + scale * np.sum([(u * s) @ v for u, s, v in off], axis=0)


def dc(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    top: Any = 0.001,
    smooth: str = "none",
    rho: float = 5.0,
    alpha: float = 1.0,
) -> np.ndarray:
    """Return base + alpha * the matrix elected among all tasks' orthogonal leading directions.

    DC-Merge, CVPR 2026, arXiv:2603.06242, with r entries of each task at least.
    """
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    r = max(1, min(base.shape) // len(models))
    parts = [leading(difference(base, m), r) for m in models]
    parts = [part for part in parts if part[1].size]
    if not parts:
        return wide(base)
    left = polar(np.hstack([u for u, _, _ in parts]))
    right = polar(np.vstack([v for _, _, v in parts]))
    seen, owner = [], [t for t, (_, s, _) in enumerate(parts) for _ in s]
    for u, s, v in parts:
        if smooth == "mean":
            s = np.full(s.size, s.mean())
        elif smooth == "linear":
            line = np.linspace(min(rho, s[0] / s[-1]), 1, s.size)
            s = s.sum() * line / line.sum()
        matrix = left.T @ (u * s) @ v @ right.T
        number = min(max(r, count_of(top, matrix.size)), matrix.size)
        least = sorted(np.abs(matrix).reshape(-1))[-number]
        seen.append(np.where(np.abs(matrix) >= least, matrix, 0))
    total = np.zeros((len(owner), len(owner)))
    for i, j in np.ndindex(total.shape):
        column = [matrix[i, j] for matrix in seen]
        sign = np.sign(math.fsum(column))
        agree = [x for x in column if x * sign > 0]
        if owner[i] == owner[j] and agree:
            total[i, j] = mean([np.array(x) for x in agree])
    return wide(base) + alpha * left @ total @ right


# --- of the merged step ------------------------------------------------------------------------


def svc(step: np.ndarray, taus: Sequence[np.ndarray], *, least: float | None = None) -> np.ndarray:
    """Return a matrix with its singular values over how often the tasks have each direction.

    Singular Value Calibration, ICML 2026, arXiv:2602.05536: the mean over the tasks of ``max(least,
    <u^T M, u^T tau> / |u^T tau|^2)``; least: 1/T unless given.
    """
    u, s, v = triplets(step)
    result = np.zeros(step.shape)
    for r in range(s.size):
        counts = []
        for tau in taus:
            own = u[:, r] @ tau
            count = float(u[:, r] @ step @ own) / float(own @ own) if np.any(own) else 0.0
            counts.append(max(1 / len(taus) if least is None else least, count))
        result += np.outer(u[:, r], v[r]) * s[r] * len(taus) / math.fsum(counts)
    return result


def boost(step: np.ndarray, *, share: float = 0.01) -> np.ndarray:
    """Return a matrix whose singular values are at least that with which the largest hold a share.

    Subspace Boosting, 2025, arXiv:2506.16506.
    """
    u, s, v = triplets(step)
    held = 0.0
    for least in s:
        held += least
        if held >= share * s.sum():
            return (u * np.maximum(s, least)) @ v
    return step


def low_rank(tau: np.ndarray, *, rank: int | None = None, energy: float = 0.9) -> np.ndarray:
    """Return the leading triplets: ``rank``, or the fewest that hold ``energy`` of the squares."""
    u, s, v = triplets(tau)
    if rank is None:
        rank = 1
        while rank < s.size and (s[:rank] ** 2).sum() < energy * (s**2).sum():
            rank += 1
    return (u[:, :rank] * s[:rank]) @ v[:rank]
