"""The compiled library: where it is, and its functions for a kind of raw weights.

``BREADCRUMBS_LEVEL`` takes another level of the processor than its best, ``BREADCRUMBS_LIBRARY``
another file, such as one with checks; both are for tests.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from breadcrumbs.errors import RecipeError

#: What the file is called, by platform; `build` calls it so.
SUFFIX = {"win32": ".dll", "cygwin": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
PATH = Path(os.environ.get("BREADCRUMBS_LIBRARY") or Path(__file__).parent / f"kernels{SUFFIX}")
#: How the levels of a processor are named that `breadcrumbs_level` counts.
LEVELS = ("base", "v3", "v4")

#: Dtypes of raw weights, and of other things of their sizes.
KINDS = {np.dtype(one) for one in (np.uint16, np.float32, np.uint32)}

integer, number = ctypes.c_int64, ctypes.c_double


@functools.cache
def library() -> ctypes.CDLL:
    """Return the library; OSError if there is none that this machine can load."""
    return ctypes.CDLL(str(PATH))


def levels() -> tuple[str, ...]:
    """Return the levels that this processor runs, the best one last."""
    return LEVELS[: library().breadcrumbs_level() + 1]


@functools.cache
def level() -> str:
    """Return the level that is used; RecipeError if it was asked for and cannot be."""
    runs = levels()
    wanted = os.environ.get("BREADCRUMBS_LEVEL") or runs[-1]
    if wanted not in runs:
        raise RecipeError(f"BREADCRUMBS_LEVEL={wanted}: this machine runs {', '.join(runs)}.")
    return wanted


def function(name: str, itemsize: int, result: Any = None) -> Callable[..., Any]:
    """Return a function for raw weights of so many bytes, at the level of this processor."""
    return _function(name, itemsize, result, level())


@functools.cache
def _function(name: str, itemsize: int, result: Any, at_level: str) -> Callable[..., Any]:
    found = library()[f"breadcrumbs_{name}_{8 * itemsize}_{at_level}"]
    found.restype = result
    return found


def _slow_at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.__array_interface__["data"][0])


def _quick_at(array: np.ndarray) -> ctypes.c_void_p:
    return _address(id(array) + _OFFSET)


#: Asking an array for its address takes longer than most kernels. It is the first field of one.
_address, _OFFSET = ctypes.c_void_p.from_address, object.__basicsize__
_probe = np.empty(1)
_quick = sys.implementation.name == "cpython" and _quick_at(_probe).value == _slow_at(_probe).value

#: Returns the address of the first entry of an array, which has to live as long.
at: Callable[[np.ndarray], ctypes.c_void_p] = _quick_at if _quick else _slow_at


def maybe(array: np.ndarray) -> ctypes.c_void_p | None:
    """Return the address of an array, none of an empty one."""
    return at(array) if array.size else None


def flat(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """Return an array, or a copy, whose entries lie one after the other where C may read them."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and (dtype is None or array.dtype == dtype):
        return array
    return np.require(array, dtype, ["C", "A"])


def takes(raw: np.ndarray, *outputs: np.ndarray) -> bool:
    """Return whether C knows this kind of raw weights, and can write to the outputs."""
    return raw.dtype in KINDS and all(
        one.flags.c_contiguous and one.flags.aligned for one in outputs
    )


def rows(models: np.ndarray) -> tuple[np.ndarray, ctypes.c_int64]:
    """Return rows whose entries lie one after the other, and how far apart these begin."""
    size, (apart, step) = models.itemsize, models.strides
    if (models.shape[1] > 1 and step != size) or apart % size or not models.flags.aligned:
        models = np.require(models, None, ["C", "A"])
    return models, integer(models.strides[0] // size)
