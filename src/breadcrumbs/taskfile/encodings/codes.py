"""Whole numbers of a few bits as bytes: side by side, or one byte each in zstandard."""

from __future__ import annotations

import numpy as np

from breadcrumbs.errors import CheckpointError
from breadcrumbs.taskfile import zstd

PACKED, FRAME = 0, 1
#: Parts of the bytes that must be saved for a frame to be worth unpacking.
_WORTH = 16


def write(codes: np.ndarray, bits: int) -> tuple[int, bytes]:
    """Return how codes (uint8, below ``2**bits``) are written, and the bytes: the smaller."""
    packed = _packed(codes, bits)
    frame = zstd.compress(np.ascontiguousarray(codes).tobytes())
    return (FRAME, frame) if len(frame) < len(packed) - len(packed) // _WORTH else (PACKED, packed)


def read(code: int, data: memoryview, number: int, bits: int) -> np.ndarray:
    """Return ``number`` codes (uint8); CheckpointError if the bytes hold others."""
    if code == PACKED:
        size = -(-number * bits // 8)
        if len(data) != size:
            raise CheckpointError(f"has {len(data)} bytes of values where {size} belong")
        return _unpacked(np.frombuffer(data, np.uint8), number, bits)
    if code != FRAME:
        raise CheckpointError(f"has values of the unknown code {code}")
    codes = np.frombuffer(zstd.decompress(data, number), np.uint8)
    if codes.size != number or codes.max(initial=0) >> bits:
        raise CheckpointError(f"has other values than {number} of {bits} bits")
    return codes


def _packed(codes: np.ndarray, bits: int) -> bytes:
    """Return codes side by side, the lowest bit of the first code first."""
    if bits == 8:
        return codes.tobytes()
    if bits == 1:
        return np.packbits(codes, bitorder="little").tobytes()
    if 8 % bits == 0:  # whole codes make up a byte
        each = 8 // bits
        padded = np.zeros(-(-codes.size // each) * each, np.uint8)
        padded[: codes.size] = codes
        packed = padded[::each].copy()
        for i in range(1, each):
            packed |= padded[i::each] << np.uint8(i * bits)
        return packed.tobytes()
    ones = np.unpackbits(codes[:, None], axis=1, bitorder="little", count=bits)
    return np.packbits(ones, bitorder="little").tobytes()


def _unpacked(data: np.ndarray, number: int, bits: int) -> np.ndarray:
    if bits == 8:
        return data
    if 8 % bits == 0:
        each, mask = 8 // bits, np.uint8((1 << bits) - 1)
        found = np.empty((data.size, each), np.uint8)
        for i in range(each):
            np.bitwise_and(data >> np.uint8(i * bits), mask, out=found[:, i])
        return found.reshape(-1)[:number]
    ones = np.unpackbits(data, count=number * bits, bitorder="little").reshape(number, bits)
    codes = ones[:, 0].copy()
    for bit in range(1, bits):
        codes |= ones[:, bit] << bit
    return codes
