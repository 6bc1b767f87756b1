"""The classical methods, from their papers.

Average and greedy soups, Fisher merging, RegMean, TIES, DARE, DELLA, magnitude pruning, and the
geodesic means that mergekit made popular, which are defined by its documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from reference import is_weight

from references.common import (
    Arrays,
    added,
    ascending,
    count_of,
    difference,
    exact,
    flat,
    flat_magnitude,
    in_rows,
    largest,
    magnitude,
    mean,
    shaped,
    weights_of,
    wide,
)

# --- pruning one task vector -------------------------------------------------------------------


def magnitude_mask(
    base: np.ndarray,
    model: np.ndarray,
    *,
    density: Any,
    granularity: str = "tensor",
    least: int = 0,
) -> np.ndarray:
    """Return the mask of the ``floor(density * n)`` largest ``|tau|`` of each unit.

    granularity: the unit is the ``tensor`` or each ``row`` along the last axis.
    least: what a unit keeps at least, if density > 0; mergekit 0.1.5 has 1, here it is 0.
    """
    size = magnitude(base, model)
    units = [size.reshape(-1)] if granularity == "tensor" else in_rows(size)
    masks = []
    for unit in units:
        count = max(count_of(density, unit.size), least if density > 0 else 0)
        masks.append(largest(unit, min(count, unit.size)))
    return np.array(masks, bool).reshape(size.shape)


def magnitude_prune(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    density: Any,
    granularity: str = "tensor",
    alpha: float = 1.0,
) -> np.ndarray:
    """Return ``base + alpha * sum of the task vectors``, each cut to its largest entries."""
    total = np.zeros(base.shape)
    for model in models:
        mask = magnitude_mask(base, model, density=density, granularity=granularity)
        total += np.where(mask, difference(base, model), 0)
    return wide(base) + alpha * total


def dare(tau: np.ndarray, uniforms: np.ndarray, *, p: float = 0.9) -> np.ndarray:
    """Return ``tau`` with entries dropped with probability ``p``, the rest over ``1 - p``.

    Yu et al., "Language Models are Super Mario", ICML 2024, arXiv:2311.03099: the expected
    value is ``tau``. uniforms: one draw from [0, 1) for each entry; it stays below ``1 - p``.
    p = 1 drops all, and nothing is divided by 0. (mergekit's ``density`` is 1 - p, and it scales
    to the former L1 norm of the tensor instead, which is biased.)
    """
    if p >= 1:
        return np.zeros_like(tau)
    return np.where(uniforms < 1 - p, tau / (1 - p), 0.0)


def della_probabilities(
    base: np.ndarray, model: np.ndarray, *, density: float, epsilon: float = 0.15
) -> np.ndarray:
    """Return the chance of each entry to stay, from ``density - epsilon`` to ``+ epsilon``.

    Deep et al., "DELLA-Merging", 2024, arXiv:2406.11617: ranks of ``|tau|`` in each row
    along the last axis, linear in the rank. A row of one column has ``density``. (mergekit ranks
    along axis 1, which is the last one of matrices only, and fails at one column.)
    """
    if not 0 < density - epsilon <= density + epsilon < 1:
        raise ValueError("density - epsilon and density + epsilon must lie inside (0, 1)")
    rows = []
    for row in in_rows(magnitude(base, model)):
        chance = np.full(row.size, float(density))
        for rank, i in enumerate(ascending(row)):
            if row.size > 1:
                chance[i] = density - epsilon + 2 * epsilon * rank / (row.size - 1)
        rows.append(chance)
    return np.array(rows).reshape(base.shape)


def della(tau: np.ndarray, uniforms: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return ``tau / chance`` where the draw is below the chance, 0 elsewhere (MagPrune)."""
    return np.where(uniforms < chance, tau / chance, 0.0)


# --- electing and merging ----------------------------------------------------------------------


def elect(values: Sequence[np.ndarray], *, zero: str = "majority") -> np.ndarray:
    """Return the elected sign of every entry: of the exact sum over the models; never 0.

    zero: what a sum of 0 elects: ``majority``, the sign of the sum of all elected signs and
    negative if that is 0 too (TIES's program), or ``positive`` (mergekit).
    """
    columns = zip(*(v.reshape(-1).tolist() for v in values), strict=True)
    sums = [math.fsum(column) for column in columns]
    signs = np.array([(s > 0) - (s < 0) for s in sums])
    other = 1 if zero == "positive" or signs.sum() > 0 else -1
    return np.where(signs == 0, other, signs).reshape(values[0].shape)


def disjoint(
    values: Sequence[np.ndarray],
    signs: np.ndarray,
    *,
    merge: str = "mean",
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the ``mean``, ``sum`` or ``max`` of the values that have the elected sign.

    values: already times their weights. The mean divides by the sum of the agreeing ``|weight|``;
    where none agrees, the result is 0. (mergekit sums the weights with their signs, so that
    weights 1 and -1 divide by 0, which it makes 1.)
    """
    result = np.zeros(signs.shape)
    shares = [1.0] * len(values) if weights is None else [abs(w) for w in weights]
    for i in np.ndindex(signs.shape):
        agree = [t for t, v in enumerate(values) if v[i] * signs[i] > 0]
        if not agree:
            continue
        if merge == "max":
            result[i] = signs[i] * max(abs(values[t][i]) for t in agree)
            continue
        result[i] = math.fsum(values[t][i] for t in agree)
        if merge == "mean":
            result[i] /= math.fsum(shares[t] for t in agree)
    return result


def weighted(taus: Sequence[np.ndarray], weights: Sequence[float] | None) -> list[np.ndarray]:
    weights = [1.0] * len(taus) if weights is None else weights
    return [w * tau for w, tau in zip(weights, taus, strict=True)]


def elected_sum(
    base: np.ndarray,
    taus: Sequence[np.ndarray],
    *,
    merge: str = "sum",
    weights: Sequence[float] | None = None,
    zero: str = "positive",
    alpha: float = 1.0,
) -> np.ndarray:
    """Return base + alpha * the disjoint merge of task vectors that are pruned already.

    With `dare` this is dare_ties, with `della` della, with a Breadcrumbs mask breadcrumbs_ties: of
    one tensor at a time, as in mergekit, where ``normalize: true`` is ``merge="mean"``.
    """
    values = weighted(taus, weights)
    signs = elect(values, zero=zero)
    return wide(base) + alpha * disjoint(values, signs, merge=merge, weights=weights)


def linear_sum(
    base: np.ndarray,
    taus: Sequence[np.ndarray],
    *,
    weights: Sequence[float] | None = None,
    alpha: float = 1.0,
) -> np.ndarray:
    """Return ``base + alpha * sum of weight * tau``: dare_linear and della_linear."""
    return wide(base) + alpha * np.sum(weighted(taus, weights), axis=0)


def ties_vector(
    base: Arrays,
    models: Sequence[Arrays],
    *,
    density: Any = 0.2,
    merge: str = "mean",
    granularity: str = "model",
    weights: Sequence[float] | None = None,
    zero: str | None = None,
    least: int = 0,
) -> dict[str, np.ndarray]:
    """Return the merged task vector of TIES; the arguments are `ties`'s."""
    names = weights_of(base)
    zero = zero or ("majority" if granularity == "model" else "positive")
    units = [names] if granularity == "model" else [[name] for name in names]
    result: dict[str, np.ndarray] = {}
    for unit in units:
        trimmed = []
        for model in models:
            size = flat_magnitude(base, model, unit)
            count = max(count_of(density, size.size), least if density > 0 else 0)
            keep = largest(size, min(count, size.size))
            trimmed.append(np.where(keep, flat(model, unit) - flat(base, unit), 0))
        values = weighted(trimmed, weights)
        merged = disjoint(values, elect(values, zero=zero), merge=merge, weights=weights)
        result |= shaped(merged, base, unit)
    return result


def ties(
    base: Arrays, models: Sequence[Arrays], *, alpha: float = 1.0, **parameters: Any
) -> dict[str, np.ndarray]:
    """Return ``base + alpha * tau`` with TIES's trimmed, elected, disjoint ``tau``.

    Yadav et al., "TIES-Merging", NeurIPS 2023, arXiv:2306.01708, Alg. 1. Trim: the
    ``floor(density * N)`` largest ``|tau_t|`` of the whole model stay (its program keeps one more).
    Elect: the sign of the sum. Merge: the mean of the trimmed values of that sign, or their sum or
    max. Published: density .2; alpha 1 with the mean, .3 with the sum (.4 where nothing is tuned).

    weights: times the trimmed task vectors, before electing; not in the paper.
    granularity: ``model``, or ``tensor`` for mergekit's reading, which also elects + for a sum of
    0; its ``least`` is 1.
    """
    return added(base, ties_vector(base, models, **parameters), alpha)


def survivors(
    base: Arrays,
    models: Sequence[Arrays],
    weights: Sequence[float],
    *,
    density: Any = 0.2,
    alpha: float = 0.3,
) -> dict[str, np.ndarray]:
    """Return ``base + alpha * sum_t w_t m_t tau_t``: what AdaMerging++ adds up.

    Yang et al., "AdaMerging", ICLR 2024, arXiv:2310.02575: m_t are the entries that TIES leaves of
    each task vector, trimmed over the whole model and of the elected sign (+ for a sum of 0), the
    weights having no part in that. A model of weight 0 is not there.
    """
    names = weights_of(base)
    trimmed = []
    there = [(model, w) for model, w in zip(models, weights, strict=True) if w]
    for model, _ in there:
        size = flat_magnitude(base, model, names)
        keep = largest(size, count_of(density, size.size))
        trimmed.append(np.where(keep, flat(model, names) - flat(base, names), 0).tolist())
    step = []
    for column in zip(*trimmed, strict=True):
        sign = -1 if math.fsum(column) < 0 else 1
        terms = [w * v for v, (_, w) in zip(column, there, strict=True) if v * sign > 0]
        step.append(math.fsum(terms))
    return added(base, shaped(np.array(step), base, names), alpha)


# --- means on spheres (mergekit) ---------------------------------------------------------------


def norm(x: np.ndarray) -> float:
    return math.sqrt(math.fsum(v * v for v in x.reshape(-1).tolist()))


def dot(x: np.ndarray, y: np.ndarray) -> float:
    pairs = zip(x.reshape(-1).tolist(), y.reshape(-1).tolist(), strict=True)
    return math.fsum(a * b for a, b in pairs)


def unit(x: np.ndarray) -> np.ndarray:
    """Return ``x / |x|``; 0 stays 0."""
    length = norm(x)
    return x / length if length else x


def slerp(
    base: np.ndarray, models: Sequence[np.ndarray], *, t: float = 0.5, threshold: float = 0.9995
) -> np.ndarray:
    """Return the point at ``t`` on the great circle from the base's direction to one model's.

    Shoemake 1985: ``sin((1 - t) w) / sin w * a + sin(t w) / sin w * b`` with the angle ``w`` of the
    flat tensors, their lengths left as they are. A tensor of zeros has angle pi/2. Where
    ``|cos w| > threshold``: ``(1 - t) a + t b``.
    """
    (model,) = models
    a, b = wide(base), wide(model)
    cosine = min(1.0, max(-1.0, dot(unit(a), unit(b))))
    if abs(cosine) > threshold:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def nuslerp(
    base: np.ndarray | None,
    models: Sequence[np.ndarray],
    *,
    weights: Sequence[float] = (1.0, 1.0),
    flatten: bool = True,
    row_wise: bool = False,
) -> np.ndarray:
    """Return the slerp of two models, or of their task vectors if there is a base.

    ``t = w2 / (w1 + w2)``, 1/2 if the weights cancel. flatten: one angle for a tensor; else one
    for each line along the last axis, or, with row_wise, along the FIRST axis (as mergekit's
    ``nuslerp_row_wise``, whatever its name says). Parallel lines: the straight mean.
    """
    a, b = (wide(m) if base is None else difference(base, m) for m in models)
    total = sum(weights)
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    if flatten or a.ndim == 0:
        result = slerp(a, [b], t=t, threshold=math.sqrt(1 - 1e-16))
    else:
        axis = 0 if row_wise else -1
        x, y = (in_rows(np.swapaxes(v, axis, -1)) for v in (a, b))
        # Short lines are often opposite, which the rounding of their cosine must not hide.
        lines = [
            slerp(u, [v], t=t, threshold=math.sqrt(1 - 1e-14)) for u, v in zip(x, y, strict=True)
        ]
        turned = np.array(lines).reshape(np.swapaxes(a, axis, -1).shape)
        result = np.swapaxes(turned, axis, -1)
    return result if base is None else wide(base) + result


def multislerp(
    base: np.ndarray | None,
    models: Sequence[np.ndarray],
    *,
    weights: Sequence[float] | None = None,
    normalize: bool = True,
    eps: float = 1e-8,
) -> np.ndarray:
    """Return the direction of the weighted sum of directions, at the weighted mean length.

    Goddard, "Multi-SLERP", 2025. Of task vectors if there is a base. normalize: the weights sum to
    1. There the directions are also projected on the tangent space at that sum, and the weighted
    sum of the projections followed along the sphere; but that sum is 0, by the choice of the point.
    Where the directions cancel, or all are 0: the weighted sum (mergekit: for two models; an error
    for more, so for any tensor that none of three models changed). One model is returned as it is.
    """
    if len(models) == 1:
        return wide(models[0])
    values = [wide(m) if base is None else difference(base, m) for m in models]
    shares = [1.0] * len(values) if weights is None else list(weights)
    if normalize:
        shares = [w / sum(shares) for w in shares]
    middle = np.sum(weighted([unit(v) for v in values], shares), axis=0)
    length = math.fsum(w * norm(v) for w, v in zip(shares, values, strict=True))
    cancel = norm(middle) < eps
    step = np.sum(weighted(values, shares), axis=0) if cancel else length * unit(middle)
    return step if base is None else wide(base) + step


def karcher(
    base: np.ndarray | None,
    models: Sequence[np.ndarray],
    *,
    max_iter: int = 10,
    tol: float = 1e-5,
) -> np.ndarray:
    """Return the Karcher mean of the directions at the mean length, all models counting alike.

    Karcher 1977; fixed point of ``m <- exp_m(mean of log_m(u_t))``, begun at the unit vector of
    the sum (the first model's, if that is below tol), stopped by a step below ``tol`` or after
    ``max_iter``. Of the weights themselves: a base counts as one more model. Tensors shorter than
    ``tol`` have no direction, but their length counts. A direction opposite to the mean pulls
    nowhere. (mergekit takes angles from float32 cosines, which are noise below 5e-4: for models
    so close to each other, its error is as large as their task vectors.)
    """
    values = [wide(m) for m in (models if base is None else [base, *models])]
    if len(values) == 1:
        return values[0]
    lengths = [norm(v) for v in values]
    units = [unit(v) for v, length in zip(values, lengths, strict=True) if length > tol]
    if not units:
        return np.zeros(values[0].shape)
    middle = mean(units)
    middle = units[0] if norm(middle) < tol else unit(middle)
    for _ in range(max_iter):
        step = np.zeros(middle.shape)
        for u in units:
            along = dot(u, middle)
            across = u - along * middle
            sine = norm(across)
            if sine >= tol:
                step += math.atan2(sine, along) / sine * across / len(units)
        size = norm(step)
        if size < tol:
            break
        middle = unit(math.cos(size) * middle + math.sin(size) * step / size)
    return math.fsum(lengths) / len(lengths) * middle


def nearswap(base: np.ndarray, models: Sequence[np.ndarray], *, t: float) -> np.ndarray:
    """Return the base moved towards one model, each entry by at most ``t``.

    ``w = min(1, t / |a - b|)``, ``w b + (1 - w) a``, which is ``a + clip(b - a, -t, t)``; the base
    is ``a``. (Alchemonaut, QuartetAnemoi, 2024; there t = .0001.)
    """
    (model,) = models
    return wide(base) + np.clip(difference(base, model), -t, t)


def variances(taus: Sequence[np.ndarray]) -> np.ndarray:
    """Return the variance of each entry over the models, times their number squared, exactly."""
    columns = zip(*(exact(tau) for tau in taus), strict=True)
    found = [len(c) * sum(x * x for x in c) - sum(c) ** 2 for c in columns]
    return np.array(found, object).reshape(taus[0].shape)


def sce(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    density: Any = 1.0,
    adds: str = "selected",
) -> np.ndarray:
    """Return base + the task vectors selected by variance, weighted by energy, minority erased.

    Wan et al., "FuseChat", 2024, arXiv:2408.07990. Select: of the entries whose
    variance over the models is not 0, the fraction ``density`` with the largest. Calculate: the
    weight of a model is its sum of squares over those of all. Erase: entries against the sign of
    the sum (+ for 0). The rest is a weighted mean. density 1 selects all.
    adds ``all``: all entries are added, as in the authors' program, where selection is for the
    weights. mergekit takes equal weights if the mean squares sum to less than 1e-6, as those of
    most fine-tunings do; here, only if they are all 0.
    """
    taus = whole = [difference(base, m) for m in models]
    if density < 1:
        variance = variances(taus)
        count = count_of(density, int(np.count_nonzero(variance)))
        taus = [np.where(largest(variance, count), tau, 0) for tau in taus]
    energies = [dot(tau, tau) for tau in taus]
    total = math.fsum(energies)
    shares = [e / total if total else 1 / len(taus) for e in energies]
    taus = whole if adds == "all" else taus
    signs = elect(taus, zero="positive")
    over = np.sum([w * (tau * signs > 0) for w, tau in zip(shares, taus, strict=True)], axis=0)
    kept = np.sum([np.where(t * signs > 0, w * t, 0) for w, t in zip(shares, taus, strict=True)], 0)
    return wide(base) + kept / np.where(over == 0, 1, over)


def model_stock(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    filter_wise: bool = False,
    clamp: bool = True,
    guard: float = 0.0,
    angles: bool = False,
) -> np.ndarray:
    """Return ``t * mean + (1 - t) * base`` with ``t = T c / (1 + (T - 1) c)``, in [0, 1].

    Jang et al., "Model Stock", ECCV 2024, arXiv:2403.19522: ``c`` is the
    cosine between two task vectors; for more than two models the mean of the COSINES of all pairs
    (the paper: of nearly equal angles). A task vector of zeros has cosine 0 with any.
    filter_wise: one ``t`` for each line along the last axis.
    clamp: c < 0 gives the base. False, as mergekit: the formula extrapolates there, except that
    a denominator below 1e-6 gives the base.
    guard: a cosine divides by no product of two lengths below this (mergekit: 1e-6), which takes
    that of short, barely trained tensors towards 0.
    """
    count = len(models)
    taus = [difference(base, m) for m in models]
    lines = [in_rows(tau) if filter_wise else tau.reshape(1, -1) for tau in taus]
    result = np.zeros(lines[0].shape)
    for row in range(result.shape[0]):
        units = [unit(line[row]) for line in lines]
        sizes = [math.sqrt(dot(line[row], line[row])) for line in lines]
        pairs = []
        for j in range(count):
            for i in range(j):
                size = sizes[i] * sizes[j]
                short = size / guard if size < guard else 1.0
                pairs.append(short * dot(units[i], units[j]))
        cosine = math.fsum(pairs) / len(pairs)
        if angles:  # the mean of the angles
            cosine = math.cos(math.fsum(map(math.acos, pairs)) / len(pairs))
        below = 1 + (count - 1) * cosine
        t = count * cosine / below if abs(below) >= 1e-6 else 0.0
        if clamp:
            t = min(1.0, t) if cosine > 0 else 0.0
        result[row] = t * mean([line[row] for line in lines])
    return wide(base) + result.reshape(base.shape)


# --- with scores or statistics -----------------------------------------------------------------


def soup(models: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """Return the mean of whole models; what is not a float tensor is the first's."""
    return {
        name: mean([m[name] for m in models]) if is_weight(array) else array
        for name, array in models[0].items()
    }


def greedy_soup(
    models: Sequence[Arrays],
    scores: Sequence[float],
    score: Callable[[Mapping[str, np.ndarray]], float],
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return the greedy soup and the models in it, in the order in which they joined.

    Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482, Recipe 1: by falling held-out
    score (the first of equals first); a model joins if the score of the mean with it is not below
    the score of the mean without it.
    """
    order = sorted(range(len(models)), key=lambda i: -scores[i])
    chosen, best = [order[0]], scores[order[0]]
    for i in order[1:]:
        tried = score(soup([models[j] for j in [*chosen, i]]))
        if tried >= best:
            chosen.append(i)
            best = tried
    return soup([models[i] for i in chosen]), chosen


def diagonal_fisher(gradients: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of the squared gradients, one gradient for each EXAMPLE."""
    return np.mean([wide(g) ** 2 for g in gradients], axis=0)


def fisher(
    models: Sequence[np.ndarray],
    fishers: Sequence[np.ndarray],
    *,
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Return ``sum(l_t F_t theta_t) / sum(l_t F_t)``, the mean by ``l_t`` where that divides by 0.

    Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022,
    arXiv:2111.09832. weights: the ``l_t``, 1 by default.
    """
    shares = weighted([wide(f) for f in fishers], weights)
    over = np.sum(shares, axis=0)
    total = np.sum([s * wide(m) for s, m in zip(shares, models, strict=True)], axis=0)
    return np.where(over == 0, weighted_mean(models, weights), total / np.where(over == 0, 1, over))


def weighted_mean(
    models: Sequence[np.ndarray], weights: Sequence[float] | None = None
) -> np.ndarray:
    """Return ``sum(l_t theta_t) / sum(l_t)``."""
    shares = [1.0] * len(models) if weights is None else weights
    return np.sum(weighted([wide(m) for m in models], shares), axis=0) / math.fsum(shares)


def regmean(
    models: Sequence[np.ndarray],
    grams: Sequence[np.ndarray],
    *,
    off_diagonal: float = 0.95,
    ridge: float = 1e-6,
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the linear layer nearest to all models' outputs on their own inputs.

    Jin et al., "Dataless Knowledge Fusion", ICLR 2023, arXiv:2212.09849:
    ``W (sum G_t) = sum W_t G_t`` for weights of shape (out, in) and Gram matrices ``X^T X``
    of shape (in, in), the entries off the diagonal times ``off_diagonal`` (.9 in the paper).
    ridge: times the mean of the diagonal of the sum of the ``G_t``; it pulls towards the mean of
    the models, so that equal models are returned whatever the Gram matrices are. weights: times
    the ``G_t``, and of that mean; not in the paper.
    """
    size = grams[0].shape[0]
    shrink = np.where(np.eye(size, dtype=bool), 1.0, off_diagonal)
    shrunk = weighted([wide(g) * shrink for g in grams], weights)
    total = np.sum(shrunk, axis=0)
    middle = weighted_mean(models, weights)
    pull = ridge * np.trace(total) / size
    if not total.any():
        return middle
    right = np.sum([(wide(m) - middle) @ g for m, g in zip(models, shrunk, strict=True)], axis=0)
    return middle + np.linalg.solve((total + pull * np.eye(size)).T, right.T).T
