"""What was tried on matrices: (task vectors (T, m, n), float32) -> step (m, n) at alpha 1."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from breadcrumbs.methods.aggregates.singular import triplets
from breadcrumbs.methods.finishes.boost import boost
from breadcrumbs.methods.finishes.svc import svc
from breadcrumbs.methods.published.dc import dc
from breadcrumbs.methods.published.iso import iso_cts
from breadcrumbs.methods.published.polar import polar as polar_step
from breadcrumbs.methods.published.tsv_m import tsv_m

Candidate = Callable[[np.ndarray], np.ndarray]
_DC = {"smooth": "none", "rho": 5.0, "top": Decimal("0.001")}


Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]
#: Of task vectors that live as long as the program, by where they lie: their triplets.
_KNOWN: dict[tuple[int, tuple[int, ...]], Triplets] = {}


def svd(matrix: np.ndarray) -> Triplets:
    u, s, v = triplets(matrix.astype(np.float64))
    return u.astype(np.float32), s.astype(np.float32), v.astype(np.float32)


def own(tau: np.ndarray) -> Triplets:
    """Return `svd` of a task vector, a view of those of the laboratory, kept."""
    key = tau.__array_interface__["data"][0], tau.shape
    if key not in _KNOWN:
        _KNOWN[key] = svd(tau)
    return _KNOWN[key]


def polar(matrix: np.ndarray) -> np.ndarray:
    u, _, v = svd(matrix)
    return u @ v


def grams(taus: np.ndarray, power: float, side: str) -> np.ndarray:
    """Return (tau^T tau)^power of each, or (tau tau^T)^power, over its trace."""
    found = []
    for tau in taus:
        if power == 1:
            gram = tau.T @ tau if side == "in" else tau @ tau.T
        else:
            u, s, v = own(tau)
            q = v.T if side == "in" else u
            gram = (q * s ** (2 * power)) @ q.T
        found.append(gram / max(np.trace(gram), 1e-30))
    return np.array(found)


def flow(
    taus: np.ndarray, time: float = 2.0, power: float = 1.0, start: np.ndarray | None = None
) -> np.ndarray:
    """WUDI's flow. power: of the Grams. start: the sum of the task vectors unless given."""
    begin = taus.sum(axis=0) if start is None else start
    mine = grams(taus, power, "in")
    a, c = mine.sum(axis=0), np.einsum("tmn,tnk->mk", taus, mine, optimize=True)
    e, q = np.linalg.eigh(a)
    e = np.maximum(e, 1e-7 * e[-1])
    way = c - begin @ a
    return begin + ((way @ q) * (-np.expm1(-time * e / e.mean()) / e)) @ q.T


def ridge(taus: np.ndarray, share: float = 0.1, power: float = 1.0) -> np.ndarray:
    mine = grams(taus, power, "in")
    a, c = mine.sum(axis=0), np.einsum("tmn,tnk->mk", taus, mine, optimize=True)
    e, q = np.linalg.eigh(a)
    return ((c @ q) / (e + share * e.mean())) @ q.T


def both(
    taus: np.ndarray, time: float = 2.0, power: float = 1.0, start: np.ndarray | None = None
) -> np.ndarray:
    """The flow of |(M - tau) G_in^(1/2)|^2 + |G_out^(1/2) (M - tau)|^2: inputs and outputs."""
    begin = taus.sum(axis=0) if start is None else start
    ins, outs = grams(taus, power, "in"), grams(taus, power, "out")
    m, n = taus.shape[1:]
    ins, outs = ins * n, outs * m  # mean eigenvalue 1 on either side
    a, b = ins.sum(axis=0), outs.sum(axis=0)
    c = np.einsum("tmn,tnk->mk", taus, ins, optimize=True)
    c += np.einsum("tkm,tmn->kn", outs, taus, optimize=True)
    way = c - begin @ a - b @ begin
    (e, q), (f, p) = np.linalg.eigh(a), np.linalg.eigh(b)
    both = np.maximum(f[:, None] + e[None, :], 1e-7 * (e[-1] + f[-1]))
    mean = both.mean()
    return begin + p @ ((p.T @ way @ q) * (-np.expm1(-time * both / mean) / both)) @ q.T


def flattened(matrix: np.ndarray, power: float) -> np.ndarray:
    """Return the matrix with singular values to a power, their sum as it was."""
    u, s, v = svd(matrix)
    new = s**power
    return (u * (new * s.sum() / new.sum())) @ v


def even(taus: np.ndarray, power: float = 0.0) -> np.ndarray:
    """Return the sum of task vectors whose singular values are to a power, their norms kept."""
    total = np.zeros(taus.shape[1:], np.float32)
    for tau in taus:
        u, s, v = own(tau)
        new = s**power
        total += (u * (new * np.linalg.norm(s) / np.linalg.norm(new))) @ v
    return total


def equal(taus: np.ndarray, power: float = 1.0) -> np.ndarray:
    """Return the sum of task vectors brought to one norm (power 1), or nearer to it."""
    sizes = np.linalg.norm(taus.reshape(len(taus), -1), axis=1)
    new = sizes ** (1 - power)
    return np.einsum("t,tmn->mn", new * sizes.sum() / new.sum() / sizes, taus)


def esm(taus: np.ndarray, power: float = 2.0, spectral: float = 0.15) -> np.ndarray:
    """ESM with singular vectors in place of principal components of activations."""
    rank = max(1, min(taus.shape[1:]) // len(taus))
    us, vs = [], []
    for tau in taus:
        u, s, v = own(tau)
        u, s, v = u[:, :rank], s[:rank], v[:rank]
        v = s[:, None] * v
        size = np.linalg.norm(v)
        weight = (s**2 / np.mean(s**2)) ** spectral
        weight /= weight.mean()
        us.append(u * weight)
        vs.append(v * weight[:, None] * size**power)
    sizes = [np.linalg.norm(v) for v in vs]
    mean = np.mean([np.linalg.norm(t) for t in taus])
    scale = np.mean([s ** (1 / (1 + power)) for s in sizes]) ** power
    u, v = np.hstack(us), np.vstack(vs) / max(scale, 1e-30)
    del mean
    (a, s, b), (c, r, d) = svd(u), svd(v)
    return (s.mean() * r.mean() * (a @ b)) @ (c @ d)


def tsv(taus: np.ndarray, power: float = 1.0) -> np.ndarray:
    """TSV-M with singular values to a power, the sum of each task's as it was."""
    rank = max(1, min(taus.shape[1:]) // len(taus))
    us, ss, vs = [], [], []
    for tau in taus:
        u, s, v = own(tau)
        new = s[:rank] ** power
        us.append(u[:, :rank])
        ss.append(new * s[:rank].sum() / new.sum())
        vs.append(v[:rank])
    return (polar(np.hstack(us)) * np.concatenate(ss)) @ polar(np.vstack(vs))


def fit(matrix: np.ndarray, taus: np.ndarray, power: float = 1.0) -> float:
    """Return the factor of the matrix with the least interference on the tasks' own inputs.

    That minimises sum_t |(x M - tau_t) G_t^(1/2)|^2 over x, G_t of trace 1.
    """
    mine = grams(taus, power, "in")
    above = sum(np.vdot(matrix @ g, tau) for g, tau in zip(mine, taus, strict=True))
    below = sum(np.vdot(matrix @ g, matrix) for g in mine)
    return float(above / below)


def _wide(function: Callable[[np.ndarray, Any], np.ndarray], values: Any) -> Candidate:
    return lambda taus: function(taus.astype(np.float64), values)


def _svc(of: Candidate, least: float | None) -> Candidate:
    return lambda taus: svc(
        of(taus).astype(np.float64), taus.astype(np.float64), {"svc_least": least}
    )


def parsed(text: str) -> Candidate:
    """Return a candidate by its name: ``flow:time=3,power=.5|flat:power=.5|fit``."""
    head, *after = text.split("|")
    name, _, values = head.partition(":")
    given: dict[str, Any] = {
        k: float(v) for k, v in (one.split("=") for one in values.split(",") if one)
    }
    start = {
        "ta": lambda taus: taus.sum(axis=0),
        "tsv_m": _wide(tsv_m, {}),
        "iso_c": lambda taus: flattened(taus.sum(axis=0), 0.0),
        "polar": _wide(polar_step, {"length": 2.0, **given}),
        "iso_cts": _wide(iso_cts, {"common": Decimal("0.8")}),
        "dc": _wide(dc, _DC),
        "flow": lambda taus: flow(taus, **given),
        "ridge": lambda taus: ridge(taus, **given),
        "both": lambda taus: both(taus, **given),
        "esm": lambda taus: esm(taus, **given),
        "even": lambda taus: even(taus, **given),
        "equal": lambda taus: equal(taus, **given),
        "tsv": lambda taus: tsv(taus, **given),
    }[name]
    for one in after:
        start = _then(start, one)
    return start


def _then(of: Candidate, text: str) -> Candidate:
    name, _, values = text.partition(":")
    given: dict[str, Any] = {
        k: float(v) for k, v in (one.split("=") for one in values.split(",") if one)
    }
    if name == "svc":
        return _svc(of, given.get("least"))
    if name == "boost":
        return lambda taus: boost(of(taus), taus, {"boost_share": given["share"]})
    if name == "flat":
        return lambda taus: flattened(of(taus), **given)
    if name == "flow":
        return lambda taus: flow(taus, start=of(taus), **given)
    if name == "both":
        return lambda taus: both(taus, start=of(taus), **given)
    if name == "fit":

        def fitted(taus: np.ndarray) -> np.ndarray:
            step = of(taus)
            return fit(step, taus, **given) * step

        return fitted
    raise SystemExit(f"no {name}")
