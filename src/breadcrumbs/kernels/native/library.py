"""The compiled library: where it is, and its functions for a kind of raw weights."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

#: What the file is called, by platform.
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
PATH = Path(__file__).parent / f"kernels{SUFFIX}"
#: How the levels of a processor are named that `breadcrumbs_level` counts.
LEVELS = ("base", "v3", "v4")

integer, number = ctypes.c_int64, ctypes.c_double


@functools.cache
def library() -> ctypes.CDLL:
    """Return the library; OSError if there is none that this machine can load."""
    return ctypes.CDLL(str(PATH))


@functools.cache
def level() -> str:
    """Return the level of this processor."""
    return LEVELS[library().breadcrumbs_level()]


@functools.cache
def function(name: str, itemsize: int, result: Any = None) -> Callable[..., Any]:
    """Return a function for raw weights of so many bytes."""
    found = library()[f"breadcrumbs_{name}_{8 * itemsize}_{level()}"]
    found.restype = result
    return found


def at(array: np.ndarray) -> ctypes.c_void_p:
    """Return the address of the first entry of an array."""
    return ctypes.c_void_p(array.__array_interface__["data"][0])


def rows(models: np.ndarray) -> tuple[np.ndarray, ctypes.c_int64]:
    """Return rows whose entries lie one after the other, and how far apart these begin."""
    if models.shape[1] > 1 and models.strides[1] != models.itemsize:
        models = np.ascontiguousarray(models)
    return models, integer(models.strides[0] // models.itemsize)
