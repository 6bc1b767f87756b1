"""Where the kept entries of a block are, in bytes: all, a bitmap or gaps, raw or in zstandard."""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import CheckpointError
from breadcrumbs.kernels.constants import LONG
from breadcrumbs.kernels.protocol import Kernels
from breadcrumbs.taskfile import zstd

#: Codes by their numbers in the table of blocks; with `ZSTD` added, in a zstandard frame.
ALL, BITMAP, GAPS8, GAPS16 = range(4)
ZSTD = 16
NAMES = {ALL: "all", BITMAP: "bitmap", GAPS8: "gaps8", GAPS16: "gaps16"}
NAMES |= {ZSTD + code: f"{name}+zstd" for code, name in NAMES.items() if code}
_GAPS = {GAPS8: np.dtype(np.uint8), GAPS16: np.dtype("<u2")}
#: The share of entries kept above which gaps cannot win, and below which 8 bits are too few.
_DENSE, _SPARSE = 0.4, 1 / 400


def encode(positions: np.ndarray, n: int) -> tuple[int, bytes]:
    """Return the code and the bytes of ascending positions (uint32) below n: the smallest."""
    if positions.size == n:
        return ALL, b""
    mask = np.zeros(n, np.uint8)
    mask[positions] = 1
    candidates = [(BITMAP, np.packbits(mask, bitorder="little").tobytes())]
    if positions.size < _DENSE * n:
        candidates.append((GAPS8, _gaps(positions, GAPS8)))
    if positions.size < _SPARSE * n:
        candidates.append((GAPS16, _gaps(positions, GAPS16)))
    candidates += [(ZSTD + code, zstd.compress(data)) for code, data in candidates]
    return min(candidates, key=lambda one: (len(one[1]), one[0]))


def _gaps(positions: np.ndarray, code: int) -> bytes:
    long = LONG[_GAPS[code].itemsize]
    gaps = positions.astype(np.int32)
    gaps[1:] -= gaps[:-1] + np.int32(1)
    if gaps.max() < long:
        return gaps.astype(_GAPS[code]).tobytes()
    runs, left = np.divmod(gaps, long)
    result = np.full(positions.size + int(runs.sum()), long, _GAPS[code])
    result[np.arange(positions.size) + np.cumsum(runs)] = left
    return result.tobytes()


def decode(code: int, data: memoryview, positions: np.ndarray, n: int, kernels: Kernels) -> None:
    """Fill ``positions`` (uint32) with those in a block of n entries; CheckpointError if wrong.

    Nothing larger is made than an honest block needs, whatever the bytes say.
    """
    number = positions.size
    if code not in NAMES:
        raise CheckpointError(f"has positions of the unknown code {code}")
    kind = code % ZSTD
    if kind == ALL:
        if number != n or len(data):
            raise CheckpointError(f"keeps all, but {number} of {n} entries in {len(data)} bytes")
        positions[:] = np.arange(n, dtype=np.uint32)
        return
    size = -(-n // 8)
    if kind != BITMAP:
        size = (number + n // LONG[_GAPS[kind].itemsize]) * _GAPS[kind].itemsize
    raw = zstd.decompress(data, size) if code >= ZSTD else data
    odd = kind == GAPS16 and len(raw) % 2
    if len(raw) > size or (kind == BITMAP and len(raw) < size) or odd:
        raise CheckpointError(f"has {len(raw)} bytes of positions where {size} belong")
    if kind == BITMAP:
        found = kernels.from_bitmap(np.frombuffer(raw, np.uint8), n, positions)
    else:
        found = kernels.from_gaps(np.frombuffer(raw, _GAPS[kind]), n, positions)
    if found != number:
        raise CheckpointError(f"has other positions than the {number} of {n} entries that it keeps")
