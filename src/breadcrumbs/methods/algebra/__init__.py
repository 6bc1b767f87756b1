"""Products and decompositions of matrices in float64, by NumPy, or by Torch on a device.

Methods of matrices make them with the functions here, which take and return NumPy's arrays, and do
not know where they are made: that is what the recipe says (``device``), and what merges a matrix
does it within ``on(device)``. `protocol` says what is offered. Those of NumPy are what every merge
has unless told; another device rounds in another way (docs/gpu.md has by how much).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

from breadcrumbs.errors import RecipeError, suggestion
from breadcrumbs.methods.algebra.numpy import NUMPY
from breadcrumbs.methods.algebra.protocol import Algebra, Matrix

#: NumPy; Torch on the same processor, which tells how far another library is off; Torch on a GPU.
CPU, TORCH, CUDA = "cpu", "cpu:torch", "cuda"

_now: ContextVar[Algebra] = ContextVar("algebra", default=NUMPY)


def check(device: Any) -> str:
    """Return the name of a device; RecipeError if it is none. Looks for no device."""
    if device in (CPU, TORCH) or (
        isinstance(device, str) and re.fullmatch(rf"{CUDA}(:\d{{1,3}})?", device)
    ):
        return device
    raise RecipeError(
        f"device: {device!r} is not possible.{suggestion(str(device), (CUDA,))} Give {CPU} (the"
        f" default), {CUDA} or, of several, {CUDA}:1."
    )


def of(device: str) -> Algebra:
    """Return what computes on a device; RecipeError, in a line, where there is none, or no Torch.

    Torch is imported where it is asked for alone.
    """
    if check(device) == CPU:
        return NUMPY
    from breadcrumbs.methods.algebra import torch

    return torch.on("cpu" if device == TORCH else device)


@contextlib.contextmanager
def on(device: str) -> Iterator[None]:
    """What this thread does within is computed on a device, and comes back as arrays of NumPy."""
    token = _now.set(of(device))
    try:
        yield
    finally:
        _now.reset(token)


def product(*factors: Matrix, out: np.ndarray | None = None) -> np.ndarray:
    """Return the product of matrices, of more than two in the cheapest order. out: where to."""
    return _now.get().product(*factors, out=out)


def eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues (n,) of a symmetric matrix, rising, and vectors as columns (n, n)."""
    return _now.get().eigh(matrix)


def svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``U (m, k), s (k,), V^T (k, n)`` of a matrix (m, n), k the smaller side."""
    return _now.get().svd(matrix)


def qr(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``Q (m, k)`` with orthonormal columns and ``R (k, n)``, k the smaller side."""
    return _now.get().qr(matrix)


def solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return X with ``matrix X = right``; `numpy.linalg.LinAlgError` where there is none."""
    return _now.get().solve(matrix, right)


def hold(matrix: np.ndarray) -> Matrix:
    """Return a factor for many products, which is brought to the device once."""
    return _now.get().hold(matrix)
