"""The newer methods without data: by singular values, by competition, by depth, by bits.

Spectral methods act on matrices; any other tensor gets the mean of its task vectors. A singular
value below ``eps * max(shape) * largest`` counts as 0 and its vectors, which are then arbitrary,
are never used: so equal, zero and low-rank task vectors have one result on all machines, where the
published programs return what their LAPACK happens to put there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from references.common import (
    Arrays,
    added,
    ascending,
    count_of,
    difference,
    exact,
    flat,
    flat_magnitude,
    largest,
    magnitude,
    mean,
    shaped,
    weights_of,
    wide,
)

EPS = float(np.finfo(np.float64).eps)


def triplets(matrix: np.ndarray, least: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``U, s, V^T`` of the singular values that are not 0, the largest first.

    least: singular values up to this count as 0 too.
    """
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    rank = int(np.count_nonzero(s > max(least, EPS * max(matrix.shape) * s.max(initial=0))))
    return u[:, :rank], s[:rank], v[:rank]


def polar(matrix: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return the polar factor ``U V^T``: the nearest matrix with orthonormal columns or rows.

    Of a matrix without full rank: the nearest partial isometry. least: as for `triplets`.
    """
    u, _, v = triplets(matrix, least)
    return u @ v


def together(parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Return triplets side by side."""
    u, s, v = zip(*parts, strict=True)
    return np.hstack(u), np.concatenate(s), np.vstack(v)


def leading(
    matrix: np.ndarray, count: int, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    u, s, v = triplets(matrix, least)
    return u[:, :count], s[:count], v[:count]


def mean_step(base: np.ndarray, models: Sequence[np.ndarray]) -> np.ndarray:
    return mean([difference(base, m) for m in models])


# --- singular values ---------------------------------------------------------------------------


def tsv_rank(shape: Sequence[int], tasks: int) -> int:
    """Return ``floor(min(m, n) / T)``, and 1 for more tasks than that."""
    return max(1, min(shape) // tasks)


def tsv_c(base: np.ndarray, models: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the models as TSV-Compress rebuilds them: `tsv_rank` triplets of each; else whole."""
    if base.ndim != 2:
        return [wide(m) for m in models]
    rank = tsv_rank(base.shape, len(models))
    cut = [leading(difference(base, m), rank) for m in models]
    return [wide(base) + (u * s) @ v for u, s, v in cut]


def tsv_m(base: np.ndarray, models: Sequence[np.ndarray], *, alpha: float = 1.0) -> np.ndarray:
    """Return ``base + alpha * U' S V'`` of the leading singular triplets of all task vectors.

    Gargiulo et al., "Task Singular Vectors", CVPR 2025, arXiv:2412.00081: r = `tsv_rank`
    triplets of each; ``U`` and ``V`` side by side, each replaced by its polar factor; ``S`` as it
    is. Their program keeps nothing of a matrix smaller than the number of tasks.
    """
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    rank = tsv_rank(base.shape, len(models))
    u, s, v = together([leading(difference(base, m), rank) for m in models])
    if not s.size:
        return wide(base)
    return wide(base) + alpha * (polar(u) * s) @ polar(v)


def iso_c(base: np.ndarray, models: Sequence[np.ndarray], *, alpha: float = 1.0) -> np.ndarray:
    """Return ``base + alpha * mean(s) U V^T`` of the sum of the task vectors.

    Marczak et al., "No Task Left Behind", ICML 2025, arXiv:2502.04959. The mean is over
    all ``min(m, n)`` singular values, the zeros too.
    """
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    u, s, v = triplets(np.sum([difference(base, m) for m in models], axis=0))
    return wide(base) + alpha * s.sum() / min(base.shape) * u @ v


def polar_step(
    base: np.ndarray, models: Sequence[np.ndarray], *, alpha: float = 1.0, length: float = 2.0
) -> np.ndarray:
    """Return ``base + alpha * sigma U V^T`` of the sum of the task vectors, k triplets.

    sigma: ``length`` mean norms of task vectors over the root of k, or what makes the product with
    the sum that of the sum with itself, or the sum of all squared norms, whichever is least.
    """
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    taus = [difference(base, m) for m in models]
    u, s, v = triplets(np.sum(taus, axis=0))
    norms = [math.sqrt(sum(float(x) ** 2 for x in tau.flat)) for tau in taus if tau.any()]
    if not s.size:
        return wide(base)
    sigma = length * sum(norms) / len(norms) / math.sqrt(s.size)
    for square in (sum(n * n for n in norms), sum(float(x) ** 2 for x in s)):
        sigma = min(sigma, square / float(s.sum()))
    return wide(base) + alpha * sigma * u @ v


def iso_cts_ranks(d: int, tasks: int, common: Any = 0.8) -> tuple[int, int]:
    """Return how many triplets are common and how many each task has of its own, of ``d``.

    ``s = floor(common * d)``; each task has ``round((d - s) / T)``, halves to even; what remains is
    common. At least one stays common, else the task vectors have no space to be projected from.
    """
    own = round(Fraction(d - count_of(common, d), tasks))
    own = min(own, (d - 1) // tasks)
    return d - own * tasks, own


def iso_cts(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    common: Any = 0.8,
    alpha: float = 1.0,
) -> np.ndarray:
    """Return base + alpha * an isotropic matrix over the common and the tasks' own directions.

    The same paper: the leading triplets of the sum; then of each ``tau_t`` less its
    projection on the common left vectors; the tasks' and the common ones side by side; both polar
    factors; every singular value := the mean over the ``min(m, n)`` chosen ones.
    """
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    shared, own = iso_cts_ranks(min(base.shape), len(models), common)
    taus = [difference(base, m) for m in models]
    main = leading(np.sum(taus, axis=0), shared)
    parts = []
    for tau in taus:
        rest = tau - main[0] @ (main[0].T @ tau)
        # What rounding leaves of a task vector in the common space is no direction of its own.
        parts.append(leading(rest, own, 1e-10 * float(np.linalg.norm(tau))))
    u, s, v = together([*parts, main])
    if not s.size:
        return wide(base)
    return wide(base) + alpha * s.sum() / min(base.shape) * polar(u, 1e-10) @ polar(v, 1e-10)


def star_step(tau: np.ndarray, *, eta: float = 0.4) -> np.ndarray:
    """Return a matrix of the fewest leading triplets that hold ``eta`` of the nuclear norm.

    Lee et al., "STAR", NAACL 2025, arXiv:2502.10339: their singular values are scaled up
    to the whole nuclear norm.
    """
    u, s, v = triplets(tau)
    held = np.cumsum(s)
    if not s.size:
        return np.zeros(tau.shape)
    rank = min(int(np.count_nonzero(held < eta * held[-1])) + 1, s.size)
    return (u[:, :rank] * s[:rank]) @ v[:rank] * (held[-1] / held[rank - 1])


def star(
    base: np.ndarray, models: Sequence[np.ndarray], *, eta: float = 0.4, alpha: float = 1.0
) -> np.ndarray:
    """Return ``base + alpha * mean of star_step(tau_t)``."""
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    steps = [star_step(difference(base, m), eta=eta) for m in models]
    return wide(base) + alpha * mean(steps)


# --- WUDI --------------------------------------------------------------------------------------


def wudi_terms(taus: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return ``A = sum tau^T tau / |tau|^2`` and ``B = sum tau tau^T tau / |tau|^2``.

    The loss is ``sum |(M - tau_t) tau_t^T|^2 / |tau_t|^2``, its gradient ``2 (M A - B)``. A task
    vector of zeros is left out.
    """
    moved = [tau for tau in taus if np.any(tau)]
    columns = taus[0].shape[1]
    a, b = np.zeros((columns, columns)), np.zeros(taus[0].shape)
    for tau in moved:
        gram = tau.T @ tau / float(np.sum(tau * tau))
        a += gram
        b += tau @ gram
    return a, b


def wudi_loss(matrix: np.ndarray, taus: Sequence[np.ndarray]) -> float:
    return sum(
        float(np.sum(((matrix - tau) @ tau.T) ** 2) / np.sum(tau * tau))
        for tau in taus
        if np.any(tau)
    )


def wudi(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    solver: str = "flow",
    time: float = 2.0,
    ridge: float = 0.1,
    steps: int | None = 300,
    rate: float = 1e-5,
    normalize: str = "norms",
    alpha: float = 1.0,
) -> np.ndarray:
    """Return base + alpha * the matrix whose product with each task's inputs interferes least.

    Cheng et al., "Whoever Started the Interference Should End It", ICML 2025, arXiv:2503.08099:
    begun at the sum of the task vectors, ``steps`` of Adam (.9, .999, 1e-8) at ``rate``;
    published: 300 at 1e-5. An entry moves by about ``steps * rate`` at most, so this stops far from
    the minimum. steps None: the minimum that is nearest to the sum.

    flow: the same descent with steps so small that they are none, by a matrix exponential, for
    ``time`` over the mean eigenvalue of A. ridge: ``C (A + ridge mean I)^-1``. normalize ``none``:
    without the norms, which is ACTMat, arXiv:2604.01329.
    """
    if base.ndim != 2 or 0 in base.shape:
        return wide(base) + alpha * mean_step(base, models)
    taus = [difference(base, m) for m in models]
    if normalize == "norms":
        a, b = wudi_terms(taus)
    else:
        a = np.sum([tau.T @ tau for tau in taus], axis=0)
        b = np.sum([tau @ tau.T @ tau for tau in taus], axis=0)
    matrix = np.sum(taus, axis=0)
    middle = np.trace(a) / len(a)
    if not np.any(a):
        return wide(base)
    if solver == "ridge":
        over = np.linalg.pinv(a + ridge * middle * np.eye(len(a)), hermitian=True)
        return wide(base) + alpha * b @ over
    if solver == "flow":
        # dM / dt = C - M A, for a part of the time, which is doubled then.
        doublings = max(0, math.ceil(math.log2(max(len(a) * time, 1)))) + 1
        part, decay, driven = a * time / middle / 2**doublings, np.eye(len(a)), np.eye(len(a))
        for k in range(30, 0, -1):  # the series of exp(-part), and of its integral
            decay = np.eye(len(a)) - part @ decay / k
            driven = np.eye(len(a)) - part @ driven / (k + 1)
        driven = driven * time / middle / 2**doublings
        for _ in range(doublings):
            driven = driven + decay @ driven
            decay = decay @ decay
        return wide(base) + alpha * (matrix @ decay + b @ driven)
    if steps is None:
        matrix = matrix + (b - matrix @ a) @ np.linalg.pinv(a, hermitian=True)
        return wide(base) + alpha * matrix
    first, second = np.zeros(matrix.shape), np.zeros(matrix.shape)
    for step in range(1, steps + 1):
        gradient = 2 * (matrix @ a - b)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        matrix = matrix - rate * first / (1 - 0.9**step) / size
    return wide(base) + alpha * matrix


# --- which entries win -------------------------------------------------------------------------


def tatr_masks(base: Arrays, models: Sequence[Arrays], *, quantile: Any = 0.99) -> np.ndarray:
    """Return the flat mask of the ``floor(quantile * N)`` entries of least conflict.

    Sun et al., "Task Arithmetic in Trust Region", ICLR 2025, arXiv:2501.15065, with the
    task vector for its gradient: ``Omega = (sum |tau|)^2 - sum |tau|^2``, which is the sum of
    ``|tau_i| |tau_j|`` over i != j; here in exact arithmetic, as it cancels. Equal ones by
    position (the program keeps what is strictly below the value at that rank: nothing at all where
    more than that many are 0).
    """
    names = weights_of(base)
    columns = zip(*(exact(flat_magnitude(base, m, names)) for m in models), strict=True)
    omega = [sum(c) ** 2 - sum(x * x for x in c) for c in columns]
    order = sorted(range(len(omega)), key=lambda i: (omega[i], i))
    mask = np.zeros(len(omega), bool)
    mask[order[: count_of(quantile, len(omega))]] = True
    return mask


def tatr(
    base: Arrays, models: Sequence[Arrays], *, quantile: Any = 0.99, alpha: float = 0.3
) -> dict[str, np.ndarray]:
    """Return ``base + alpha * sum of the task vectors`` in the trust region, else the base."""
    names = weights_of(base)
    total = np.sum([flat(m, names) - flat(base, names) for m in models], axis=0)
    total = np.where(tatr_masks(base, models, quantile=quantile), total, 0)
    return added(base, shaped(total, base, names), alpha)


def min_max(x: np.ndarray) -> np.ndarray:
    """Return ``x`` stretched to [0, 1]; a constant gives 0."""
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread else np.zeros(x.shape)


def pcb(
    base: Arrays,
    models: Sequence[Arrays],
    *,
    ratio: Any = 0.1,
    edge: Any = 0.0001,
    alpha: float = 1.2,
) -> dict[str, np.ndarray]:
    """Return base + alpha * the task vectors, averaged by how they compete, over the whole model.

    Du et al., "Parameter Competition Balancing", NeurIPS 2024, arXiv:2410.02396. With
    ``a`` = ``|tau_t|`` clamped to its sorted values at ``floor(edge N)`` and at
    ``floor((1 - edge) N) - 1``: intra ``exp(T * min_max(a)^2)``, inter ``tanh(tau_t sum tau)`` with
    the task vectors as they are, their product clamped below at its sorted value at
    ``floor((1 - ratio) N)`` and stretched to [0, 1] is the score ``s_t``; the result is
    ``sum(sign(tau) a s) / max(sum s, 1e-12)``.
    """
    names = weights_of(base)
    taus = [flat(m, names) - flat(base, names) for m in models]
    n, total = taus[0].size, np.sum(taus, axis=0)
    if n == 0:
        return dict(base)
    above, below = np.zeros(n), np.zeros(n)
    for tau in taus:
        ranked = np.sort(np.abs(tau))
        high = max(count_of(1 - Fraction(str(edge)), n) - 1, 0)
        size = np.clip(np.abs(tau), ranked[count_of(edge, n)], ranked[high])
        product = np.exp(len(taus) * min_max(size) ** 2) * np.tanh(tau * total)
        floor = np.sort(product)[min(count_of(1 - Fraction(str(ratio)), n), n - 1)]
        score = min_max(np.maximum(product, floor))
        above += np.sign(tau) * size * score
        below += score
    return added(base, shaped(above / np.maximum(below, 1e-12), base, names), alpha)


def cabs_masks(
    base: np.ndarray, models: Sequence[np.ndarray], *, n: int | None = None, m: int = 256
) -> list[np.ndarray]:
    """Return n:m masks, one model after the other, none over another.

    Yang et al., "CABS", ICML 2025, arXiv:2503.01874: of each ``m`` entries in C order the
    ``n`` of largest ``|tau|`` among those that no earlier model has, or what is left of them. A
    last block of ``b < m`` entries has ``floor(n b / m)`` (the program drops it).
    """
    n = m // max(1, len(models)) if n is None else n
    used = np.zeros(base.size, bool)
    masks = []
    for model in models:
        size = magnitude(base, model).reshape(-1)
        mask = np.zeros(base.size, bool)
        for start in range(0, base.size, m):
            block = np.arange(start, min(start + m, base.size))
            free = block[~used[block]]
            count = min(n * block.size // m, free.size)
            mask[free[ascending(size[free])[free.size - count :]]] = True
        used |= mask
        masks.append(mask.reshape(base.shape))
    return masks


def cabs(
    base: np.ndarray,
    models: Sequence[np.ndarray],
    *,
    n: int | None = None,
    m: int = 256,
    weights: Sequence[float] | None = None,
    alpha: float = 1.0,
) -> np.ndarray:
    """Return base + alpha * the sum of the task vectors under `cabs_masks`. Order matters."""
    shares = [1.0] * len(models) if weights is None else weights
    total = np.zeros(base.shape)
    for model, mask, w in zip(models, cabs_masks(base, models, n=n, m=m), shares, strict=True):
        total += np.where(mask, w * difference(base, model), 0)
    return wide(base) + alpha * total


def localize_and_stitch(
    base: Arrays, models: Sequence[Arrays], *, density: Any = 0.1, alpha: float = 1.0
) -> dict[str, np.ndarray]:
    """Return base + alpha * the largest entries of each, over the number of tasks that own them.

    He et al., "Localize-and-Stitch", TMLR 2025, arXiv:2408.13656 (without data): the
    ``floor(density * N)`` largest ``|tau_t|`` of the model (their program keeps one less), but
    none that the model did not change.
    """
    names = weights_of(base)
    total, owners = np.zeros(flat(base, names).size), 0
    for model in models:
        size = flat_magnitude(base, model, names)
        mask = largest(size, count_of(density, size.size)) & (size > 0)
        total += np.where(mask, flat(model, names) - flat(base, names), 0)
        owners = owners + mask
    return added(base, shaped(total / np.maximum(owners, 1), base, names), alpha)


# --- depth -------------------------------------------------------------------------------------


def lines_scale(name: str, pattern: str, layers: int, *, alpha: float, beta: float) -> float:
    """Return ``alpha + beta * l / (L - 1)``, alpha where the pattern finds no layer number."""
    found = re.search(pattern, name)
    if found is None or layers < 2:
        return alpha
    return alpha + beta * int(found[1]) / (layers - 1)


def lines(
    base: Arrays,
    models: Sequence[Arrays],
    *,
    pattern: str,
    beta: float,
    alpha: float | None = None,
    layers: int | None = None,
) -> dict[str, np.ndarray]:
    r"""Return base + the sum of the task vectors, each layer scaled by its depth.

    Wang et al., "LiNeS", ICLR 2025, arXiv:2410.17146. pattern: a regular expression
    with the layer number as its group, as ``blocks\.(\d+)\.``. alpha: 1/T by default, as published
    for the sum; beta is searched on validation data there. layers: one more than the largest
    number found.
    """
    names = weights_of(base)
    found = [re.search(pattern, name) for name in names]
    if layers is None:
        layers = max((int(hit[1]) for hit in found if hit), default=0) + 1
    start = 1 / len(models) if alpha is None else alpha
    step = {}
    for name in names:
        scale = lines_scale(name, pattern, layers, alpha=start, beta=beta)
        step[name] = scale * np.sum([difference(base[name], m[name]) for m in models], axis=0)
    return added(base, step)


# --- bits --------------------------------------------------------------------------------------


def quantise(tau: np.ndarray, bits: int) -> tuple[np.ndarray, float, float]:
    """Return codes, scale and zero point of ``tau`` in ``bits`` bits; a constant has scale 0.

    ``scale = (2^b - 1) / (max - min)``, ``zero = -round(scale * min)``,
    ``code = clip(round(scale * tau + zero), 0, 2^b - 1)``, halves to even. For a constant the zero
    point is the constant.
    """
    low, high = float(tau.min()), float(tau.max())
    if low == high:
        return np.zeros(tau.shape, np.int64), 0.0, low
    scale = (2**bits - 1) / (high - low)
    zero = -float(np.round(scale * low))
    codes = np.clip(np.round(scale * tau + zero), 0, 2**bits - 1)
    return codes.astype(np.int64), scale, zero


def restored(codes: np.ndarray, scale: float, zero: float) -> np.ndarray:
    """Return ``(code - zero) / scale``."""
    return np.full(codes.shape, zero) if scale == 0 else (codes - zero) / scale


def tvq(tau: np.ndarray, *, bits: int = 4) -> np.ndarray:
    """Return a tensor of a task vector as it comes back from ``bits`` bits an entry.

    Kim et al., "Task Vector Quantization", ICCV 2025, arXiv:2503.06921.
    """
    return restored(*quantise(wide(tau), bits)) if tau.size else wide(tau)


def rtvq(
    taus: Sequence[np.ndarray], *, base_bits: int = 3, offset_bits: int = 2
) -> list[np.ndarray]:
    """Return the task vectors from a shared base of 3 bits and offsets of 2 bits.

    The same paper: the base is the mean task vector, quantised; an offset is what the
    QUANTISED base leaves of a task vector, so it makes good the base's error.
    """
    shared = tvq(mean(taus), bits=base_bits)
    return [shared + tvq(wide(tau) - shared, bits=offset_bits) for tau in taus]


# --- how alike task vectors are ----------------------------------------------------------------


def kinship(base: Arrays, models: Sequence[Arrays]) -> dict[str, np.ndarray | float]:
    """Return cosine, Pearson and Euclid of each pair of flat task vectors, and their means.

    Hu et al., "Exploring Model Kinship", 2024, arXiv:2410.12613: the mean is over all
    pairs. The cosine has its sign (the authors' program drops it). A task vector of zeros has
    cosine 0, a constant one Pearson 0.
    """
    names = weights_of(base)
    taus = [flat(m, names) - flat(base, names) for m in models]
    centred = [tau - tau.sum() / max(tau.size, 1) for tau in taus]
    pairs = [(i, j) for i in range(len(taus)) for j in range(i)]
    result: dict[str, Any] = {}
    for key in ("cosine", "pearson", "euclid"):
        table = np.zeros((len(taus), len(taus)))
        for i in range(len(taus)):
            for j in range(len(taus)):
                if key == "euclid":
                    table[i, j] = math.dist(taus[i], taus[j])
                else:
                    table[i, j] = cosine(*([taus, centred][key == "pearson"][k] for k in (i, j)))
        result[key] = table
        result[f"mean_{key}"] = math.fsum(table[i, j] for i, j in pairs) / max(len(pairs), 1)
    return result


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Return the cosine of two vectors; 0 if one of them is 0."""
    lengths = math.sqrt(math.fsum(x * x)) * math.sqrt(math.fsum(y * y))
    return math.fsum(x * y) / lengths if lengths else 0.0


def per_tensor(
    method: Any, base: Arrays, models: Sequence[Arrays], **parameters: Any
) -> Mapping[str, np.ndarray]:
    """Return a model merged tensor by tensor; what is not a float tensor is the base's."""
    merged = set(weights_of(base))
    return {
        name: method(array, [m[name] for m in models], **parameters) if name in merged else array
        for name, array in base.items()
    }
