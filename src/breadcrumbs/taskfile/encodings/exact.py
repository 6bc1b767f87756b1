"""The weights themselves: their bytes as they are, or plane by plane in zstandard.

Plane j holds byte j (from the lowest) of every value. The highest has the sign and the exponent,
of which fine-tuned weights have few; the others hardly ever get smaller, and stay as they are.
"""

from __future__ import annotations

import numpy as np

from breadcrumbs import kernels
from breadcrumbs.errors import CheckpointError
from breadcrumbs.taskfile import zstd
from breadcrumbs.taskfile.encodings.kind import Encoding, Kind

RAW, PLANES = 0, 1
#: Parts of a plane that must be saved for it to be worth unpacking.
_WORTH = 16


def _encode(values: np.ndarray, base: np.ndarray | None) -> tuple[int, bytes]:
    raw = values.view(np.uint8).reshape(values.size, values.itemsize)
    planes = [np.ascontiguousarray(raw[:, j]).tobytes() for j in range(values.itemsize)]
    made = []
    for plane in planes:
        frame = zstd.compress(plane)
        made.append(frame if len(frame) < len(plane) - len(plane) // _WORTH else plane)
    sizes = np.array([len(plane) for plane in made], "<u4").tobytes()
    if len(sizes) + sum(map(len, made)) >= values.nbytes:
        return RAW, values.tobytes()
    return PLANES, sizes + b"".join(made)


def _decode(
    code: int, data: memoryview, number: int, dtype: np.dtype, base: np.ndarray | None
) -> np.ndarray:
    return decode(code, data, number, dtype)


def decode(
    code: int, data: memoryview, number: int, dtype: np.dtype, out: np.ndarray | None = None
) -> np.ndarray:
    """Return the values, in ``out`` where they were made there; as `Encoding.decode` says."""
    width = dtype.itemsize
    if code == RAW:
        if len(data) != number * width:
            raise CheckpointError(f"has {len(data)} bytes of values where {number * width} belong")
        return np.frombuffer(data, dtype)
    if code != PLANES:
        raise CheckpointError(f"has values of the unknown code {code}")
    if len(data) < 4 * width:
        raise CheckpointError(f"has {len(data)} bytes of values, too few for {width} planes")
    sizes = np.frombuffer(data[: 4 * width], "<u4").tolist()
    if 4 * width + sum(sizes) != len(data):
        raise CheckpointError("has planes of values that are not as long as they say")
    at, planes = 4 * width, []
    for size in sizes:
        plane = data[at : at + size]
        whole = plane if size == number else zstd.decompress(plane, number)
        if len(whole) != number:
            raise CheckpointError(f"has a plane of {len(whole)} bytes for {number} values")
        planes.append(np.frombuffer(whole, np.uint8))
        at += size
    if out is None:
        out = np.empty(number, dtype)
    kernels.choose().from_planes(planes, out)
    return out


EXACT = Encoding("exact", _encode, _decode, lossless=True)
KIND = Kind("the weights themselves, bit for bit", lambda name, values: EXACT, {})
