"""This machine: bytes as people write them, its cores, the memory that was used, its disks."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
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


def duration(seconds: float) -> str:
    """Return a time in words: seconds, minutes or hours, two digits."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def read_speed(path: str | os.PathLike[str], size: int = 32 << 20) -> float | None:
    """Return the bytes a second at which the middle of a large file is read from its disk.

    None for a file that is smaller than 4 times what is read, and where a system cannot be told to
    leave aside what it has in memory. The file is not changed.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    try:
        with open(path, "rb", buffering=0) as file:
            start = os.fstat(file.fileno()).st_size // 2
            if start < 2 * size:
                return None
            os.posix_fadvise(file.fileno(), start, size, os.POSIX_FADV_DONTNEED)
            file.seek(start)
            began, left = time.perf_counter(), size
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                left -= len(data)
            return (size - left) / max(1e-9, time.perf_counter() - began)
    except OSError:
        return None
