"""This machine: bytes as people write them, its cores, the memory that was used."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

from breadcrumbs.errors import RecipeError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse(text: str | int) -> int:
    """Return the bytes that ``5GB``, ``500M``, ``2GiB`` or a number mean; RecipeError if none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", str(text), re.IGNORECASE)
    size = int(float(match[1]) * (_UNITS | _BINARY)[(match[2] or "").upper()]) if match else 0
    if size <= 0:
        raise RecipeError(f"{text!r} is not a size. Give for example 5GB, 500MB or 2GiB.")
    return size


def human(nbytes: float) -> str:
    """Return bytes in decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if nbytes < 999.5 or unit == "TB":
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    raise AssertionError


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int | None:
    """Return the most resident bytes that this process has held, or None where it is not told."""
    with contextlib.suppress(OSError, StopIteration):  # Linux; getrusage counts the parent's in
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
