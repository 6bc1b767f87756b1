"""Rows of raw weights of all kinds, cuts and draws of them, and what kernels make of them."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from breadcrumbs.engine.passes import tally as survey
from breadcrumbs.kernels import bounds, native
from breadcrumbs.kernels import numpy as plain
from breadcrumbs.kernels.native import library

#: Entries that most kernels in C go through at once.
BLOCK = 2048


class Leveled:
    """The kernels in C as a processor of one level has them."""

    def __init__(self, level: str) -> None:
        self.level = level

    def __getattr__(self, name: str):
        found = getattr(native, name)

        @functools.wraps(found)
        def call(*given):
            before, library.level = library.level, lambda: self.level
            try:
                return found(*given)
            finally:
                library.level = before

        return call


#: All packages of kernels, by name, and those that are compared with NumPy's.
PACKAGES: dict[str, Any] = {"numpy": plain} | {
    f"native-{level}": Leveled(level) for level in library.levels()
}
OTHERS = [pytest.param(it, id=name) for name, it in PACKAGES.items() if it is not plain]
KINDS = ("usual", "ties", "constant", "zeros", "denormal", "huge", "bits", "close", "halfway")
RAWS = st.sampled_from([np.uint16, np.float32])
SIZES = st.one_of(
    st.integers(1, 40), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7])
)


def raw_weights(kind: str, shape: tuple[int, ...], dtype, rng: np.random.Generator) -> np.ndarray:
    """Return finite raw weights of one kind; ``dtype`` uint16 stands for the bits of bfloat16."""
    signs = rng.choice([-1.0, 1.0], shape)
    with np.errstate(over="ignore", invalid="ignore"):
        values = {
            "usual": lambda: rng.standard_normal(shape),
            "ties": lambda: rng.integers(-3, 4, shape) / 4,
            "constant": lambda: np.full(shape, 0.75),
            "zeros": lambda: 0.0 * signs,
            "denormal": lambda: rng.integers(0, 5, shape) * signs * 2.0**-149,
            "huge": lambda: signs * rng.uniform(1, 3.3, shape) * 1e38,
            "bits": lambda: rng.integers(0, 1 << 32, shape, np.uint32).view(np.float32),
            "close": lambda: 1 + rng.integers(0, 3, shape) * 2.0**-23,
            # Halfway between two bfloat16, and zeros, which take a block off the fast path.
            "halfway": lambda: (
                (1 + rng.integers(0, 128, shape) / 64 + 2.0**-8) * (np.arange(shape[-1]) % 5 > 0)
            ),
        }[kind]()
        single = np.where(np.isfinite(values), values, -0.0).astype(np.float32)
    if dtype == np.float32:
        return single
    if kind == "denormal":
        return (rng.integers(0, 5, shape) + (signs < 0) * 0x8000).astype(np.uint16)
    return (single.view(np.uint32) >> 16).astype(np.uint16)


@st.composite
def rows(draw, sizes=SIZES, least_models=0):
    """Return (raw base, raw models): each row of a kind of its own, or a copy of the base."""
    n, dtype = draw(sizes), draw(RAWS)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    base = raw_weights(draw(st.sampled_from(KINDS)), (n,), dtype, rng)
    kinds = draw(st.lists(st.sampled_from((*KINDS, "base")), min_size=least_models, max_size=3))
    models = np.empty((len(kinds), n), dtype)
    for row, kind in zip(models, kinds, strict=True):
        row[:] = base if kind == "base" else raw_weights(kind, (n,), dtype, rng)
    return base, models


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def floats(raw: np.ndarray) -> list[float]:
    return plain.widen(raw).astype(np.float64).tolist()


@st.composite
def brackets(draw, base, models):
    """Return (G, 4) keys: narrow, wide, empty and one-key brackets, near real keys and far."""
    result = np.zeros((len(models), 4), np.uint32)
    keys = plain.magnitudes(base, models)
    finest = st.sampled_from([0, 1, 2, 0x7F7FFFFF, 0x7F800000])
    for t in range(len(models)):
        near = st.sampled_from(keys[t].tolist())
        for column in (0, 2):
            a = draw(st.one_of(near, finest))
            b = draw(st.one_of(st.just(a), near, finest))
            result[t, column : column + 2] = min(a, b), max(a, b)
            if draw(st.sampled_from([False, False, True])):
                result[t, column : column + 2] = survey.NOTHING
    return result


@st.composite
def cuts_of_units(draw, base, models):
    """Return (unit, cuts): of ranks, ties split anywhere, or of a part of a larger unit."""
    n = base.size
    if draw(st.booleans()):
        unit = draw(st.sampled_from([d for d in (1, 2, 3, 7, 16, n) if n % d == 0]))
        first, last = sorted(draw(st.tuples(*[st.integers(0, unit)] * 2)))
        return unit, plain.cut_units(base, models, unit, first, last)
    keys = plain.magnitudes(base, models)
    cuts = np.empty((1, len(models), 4), np.int64)
    for t in range(len(models)):
        near = st.sampled_from(keys[t].tolist())
        edges = [draw(near), draw(near)]
        if draw(st.booleans()):
            edges.sort()
        ties = [draw(st.integers(-1, n)) for _ in edges]
        cuts[0, t] = edges[0], ties[0], edges[1], ties[1]
        if draw(st.integers(0, 5)) == 0:
            cuts[0, t] = draw(st.sampled_from([bounds.everything(4), bounds.nothing(4)]))
    return n, cuts


@st.composite
def drawn_rows(draw, models):
    """Return (keys, start, limits); no limits where everything is kept."""
    number = len(models)
    limits = draw(st.lists(st.integers(0, 2**32 - 1), min_size=number, max_size=number))
    keys = draw(st.lists(st.integers(0, 2**64 - 1), min_size=number, max_size=number))
    start = draw(st.sampled_from([0, 1, 2048, 2**20 + 7]))
    limits = limits[: draw(st.sampled_from([0, number]))]
    return np.array(keys, np.uint64), start, np.array(limits, np.uint32)


WEIGHTS = st.sampled_from([(), (0.3, -1.0, 7.5), (1 / 3, 1 / 3, 1e9)])

ALPHAS = st.sampled_from([1.0, 0.0, 0.5, 0.3, -1.0, 1e-9, -1e-10, 1e-30, 1e-44, 1.0 / 3.0])


def assert_same_merge(base, dtype, other, run) -> None:
    """Compare what ``run(kernel, extent, out)`` makes with NumPy's kernels and with others."""
    results = []
    for kernel in (plain, other):
        extent = np.array(bounds.NO_EXTENT, np.uint32)
        out = np.empty(base.size, dtype)
        with np.errstate(over="ignore"):
            squares, *rest = run(kernel, extent, out)
        results.append((extent, out, squares, rest))
    (extent, out, squares, rest), (again, made, sums, more) = results
    assert bounds.extent_of(extent, base.dtype) == bounds.extent_of(again, base.dtype)
    assert same(out, made) and repr(rest) == repr(more)
    assert math.isclose(squares, sums, rel_tol=1e-9)
