"""A sign and a magnitude of a few bits, between the least and the largest of the block.

``tau = fine-tuned - base`` is coded as a sign and ``round((|tau| - low) / (high - low) levels)``,
``levels = 2**(bits - 1) - 1``, halves to even: int8 has 127 levels, int4 seven. What methods keep
lies between two magnitudes, mostly, so that none of the codes is lost on what was cut.

With no bit for the magnitude, `ternary`, it is the mean of them, which no other constant beats in
least squares. Yadav et al., "ComPEFT: Compression for Communicating Parameter Efficient Updates via
Sparsification and Quantization", arXiv:2311.13171, take the standard deviation of the task vector,
times an alpha that is chosen on validation rows; here a model's weight can be, in the merge.

A block begins with ``low`` and ``high`` (float64); the lowest bit of a code is 1 for a minus.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from breadcrumbs.errors import CheckpointError
from breadcrumbs.taskfile.encodings import codes
from breadcrumbs.taskfile.encodings.kind import Encoding, Kind

_ENDS = np.dtype("<f8")


def _encode(values: np.ndarray, base: np.ndarray | None, bits: int) -> tuple[int, bytes]:
    assert base is not None
    tau = values.astype(np.float64) - base.astype(np.float64)
    size = np.abs(tau)
    if bits == 1:
        low = high = float(size.mean())
    else:
        low, high = float(size.min()), float(size.max())
    found = (tau < 0).astype(np.uint8)
    if high > low:
        steps = np.rint((size - low) / (high - low) * (2 ** (bits - 1) - 1))
        found |= steps.astype(np.uint8) << 1
    code, data = codes.write(found, bits)
    return code, np.array([low, high], _ENDS).tobytes() + data


def _decode(
    code: int, data: memoryview, number: int, dtype: np.dtype, base: np.ndarray | None, bits: int
) -> np.ndarray:
    assert base is not None
    (low, high), rest = ends(data)
    if low < 0:
        raise CheckpointError(f"has magnitudes from {low}")
    found = codes.read(code, rest, number, bits)
    size = np.full(number, low)
    if bits > 1:
        size += (found >> 1) * ((high - low) / (2 ** (bits - 1) - 1))
    return (base.astype(np.float64) + np.where(found & 1, -size, size)).astype(dtype)


def ends(data: memoryview) -> tuple[tuple[float, float], memoryview]:
    """Return the two numbers that a block begins with, and the rest; CheckpointError if odd."""
    size = 2 * _ENDS.itemsize
    if len(data) < size:
        raise CheckpointError(f"has {len(data)} bytes of values, too few for their range")
    low, high = np.frombuffer(data[:size], _ENDS).tolist()
    if not (np.isfinite((low, high, high - low)).all() and low <= high):
        raise CheckpointError(f"has values from {low} to {high}")
    return (low, high), data[size:]


def _kind(summary: str, bits: int) -> Kind:
    encode, decode = partial(_encode, bits=bits), partial(_decode, bits=bits)
    return Kind(summary, lambda name, _: Encoding(name, encode, decode, False, True), {})


INT8 = _kind("a sign and 7 bits of magnitude", 8)
INT4 = _kind("a sign and 3 bits of magnitude", 4)
TERNARY = _kind("a sign, and one magnitude for all", 1)
