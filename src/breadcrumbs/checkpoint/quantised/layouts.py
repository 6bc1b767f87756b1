"""Codes and their scales -> what they stand for, by dtypes and shapes."""

from __future__ import annotations

import math

import numpy as np

from breadcrumbs.checkpoint.quantised.config import Said
from breadcrumbs.checkpoint.quantised.refusing import refused
from breadcrumbs.checkpoint.quantised.sources import (
    E2M1,
    Coding,
    Grid,
    Scaled,
    one_byte,
    two_in_a_byte,
)
from breadcrumbs.checkpoint.tensors import Tensor, shown
from breadcrumbs.errors import CheckpointError

FP8 = ("F8_E4M3", "F8_E5M2")
#: Dtypes of scales; U8 is the exponent alone, as F8_E8M0 is.
SCALES = ("F32", "BF16", "F16", "F64", "F8_E8M0", "U8")
_POWERS = ("F8_E8M0", "U8")
WIDE = ("F64", "F32", "F16", "BF16")
BLOCK = (128, 128)
#: Columns that share a scale where codes of 4 bits have powers of two.
GROUP = 32
#: Entries of a tensor that may be read to look at it.
FEW = 1 << 22
_NAMES = {"F8_E4M3": "FP8", "F8_E5M2": "FP8 E5M2", "I8": "INT8"}


def of(
    label: str, code: Tensor, scale: Tensor, zero: Tensor | None, said: Said | None
) -> tuple[Scaled, tuple[int, ...]]:
    """Return what codes of a byte, or two in a byte, stand for, and its shape."""
    halves = code.dtype == "F4" or (code.dtype == "U8") or _is_fp4(code, scale)
    if halves:
        return _of_halves(label, code, scale)
    if scale.dtype == "U8" and code.dtype == "I8":
        raise refused(label, "in an unknown layout")
    grid = _grid(label, code, code.shape, scale, said)
    coding = one_byte(code.dtype, grid.columns)
    called = _called(_NAMES[code.dtype], grid, code.shape)
    return Scaled(code, scale, coding, grid, called, zero), code.shape


def of_words(
    label: str, code: Tensor, scale: Tensor, held: Tensor, said: Said | None
) -> tuple[Scaled, tuple[int, ...]]:
    """Return what codes of 4 or 8 bits in words of 32 stand for. held: has the shape."""
    where = f"{label}: {shown(code.name)}"
    if held.dtype not in ("I64", "I32") or held.size != len(code.shape) or held.size < 2:
        raise CheckpointError(
            f"{where} is quantised, but {shown(held.name)} cannot be its shape. Download or copy"
            " the model again."
        )
    shape = tuple(int(length) for length in held.read().reshape(-1))
    words, columns = code.shape[-1], shape[-1]
    tries = (8, 4) if said is not None and said.bits == 8 else (4, 8)
    bits = next((b for b in tries if words == -(-columns * b // 32)), None)
    if bits is None or shape[:-1] != code.shape[:-1] or columns <= 0:
        raise refused(label, "compressed-tensors with neither 4 nor 8 bits")
    grid = _grid(label, code, shape, scale, said, matrix=True)
    if bits == 4:
        coding = two_in_a_byte(np.arange(16, dtype=np.float32) - 8, 4 * words)
    else:
        coding = Coding(one_byte("U8", columns, zero=128).table, 4 * words)
    return Scaled(code, scale, coding, grid, _called(f"INT{bits}", grid, shape)), shape


def is_plain_scale(code: Tensor, scale: Tensor) -> bool:
    """Return whether a tensor called just ``scale`` is that of codes: DeepSeek's own names."""
    if len(code.shape) < 2 or len(scale.shape) != len(code.shape):
        return False
    if code.dtype == "I8":
        return _is_fp4(code, scale)
    if code.dtype == "F4":
        return scale.dtype in _POWERS
    *_, rows, columns = code.shape
    return scale.shape[-2:] == (-(-rows // BLOCK[0]), -(-columns // BLOCK[1]))


def _is_fp4(code: Tensor, scale: Tensor) -> bool:
    """Return whether bytes are two codes of 4 bits each, by their scales: powers of two."""
    return (
        code.dtype == "I8"
        and scale.dtype in _POWERS
        and bool(code.shape)
        and scale.shape == (*code.shape[:-1], -(-2 * code.shape[-1] // GROUP))
    )


def _of_halves(label: str, code: Tensor, scale: Tensor) -> tuple[Scaled, tuple[int, ...]]:
    *rest, last = code.shape or (0,)
    columns = last if code.dtype == "F4" else 2 * last
    shape = (*rest, columns)
    if scale.dtype not in _POWERS or scale.shape != (*rest, -(-columns // GROUP)) or columns % 2:
        raise refused(label, "4 bits, in an unknown layout")
    rows = rest[-1] if rest else 1
    grid = Grid(rows, columns, (1, GROUP))
    coding = two_in_a_byte(E2M1, columns // 2)
    return Scaled(code, scale, coding, grid, "MXFP4"), shape


def _grid(
    label: str,
    code: Tensor,
    shape: tuple[int, ...],
    scale: Tensor,
    said: Said | None,
    matrix: bool = False,
) -> Grid:
    """Return which scale is of which entry of a shape. matrix: whether rows must stay rows."""
    size, dims = math.prod(shape), len(shape)
    rows, columns = (shape[-2], shape[-1]) if dims > 1 else (1, math.prod(shape))
    rows, columns = max(1, rows), max(1, columns)
    leading = shape[:-2] if dims > 1 else ()
    block = said.block if said is not None else None
    as_blocks = scale.dtype != "U8" and dims > 1 and len(scale.shape) == dims
    if block and as_blocks and scale.shape == _scales(leading, rows, columns, block):
        return Grid(rows, columns, block)
    if as_blocks and scale.name.endswith("_scale_inv"):
        if block and scale.size > 1 and scale.dtype not in _POWERS:
            raise _misfit(label, code, shape, scale, block)
        if scale.shape == _scales(leading, rows, columns, BLOCK):
            return Grid(rows, columns, BLOCK)
    if scale.size == 1:
        if matrix:
            return Grid(math.prod(shape[:-1]), columns, (math.prod(shape[:-1]), columns))
        return Grid(1, max(1, size), (1, max(1, size)))
    if dims and scale.size == shape[0] and scale.shape[:1] == shape[:1]:  # of the first axis
        each = size // max(1, shape[0])
        if dims == 2:
            return Grid(rows, columns, (1, columns))
        if matrix:
            inner = math.prod(shape[1:-1])
            return Grid(inner, columns, (inner, columns))
        return Grid(shape[0], max(1, each), (1, max(1, each)))
    if dims > 1 and len(scale.shape) == dims and scale.shape[:-2] == leading:
        if scale.shape == _scales(leading, rows, columns, BLOCK):
            return Grid(rows, columns, BLOCK)
        down, across = scale.shape[-2:]
        group = said.group if said is not None else None
        if group and down == rows and across == -(-columns // group):
            return Grid(rows, columns, (1, group))
        if down == rows and across and scale.shape[-1] == -(-columns // GROUP):
            return Grid(rows, columns, (1, GROUP))
        guessed = _length(rows, down), _length(columns, across)
        if all(guessed):
            return Grid(rows, columns, guessed)
    raise _misfit(label, code, shape, scale, block)


def _length(entries: int, scales: int) -> int:
    """Return how long blocks are that a config says nothing of: a power of two, or all; else 0.

    Where blocks of a power of two would be cut off at the end, others may be meant.
    """
    if scales <= 1:
        return entries if scales else 0
    each, rest = divmod(entries, scales)
    return each if not rest and each & (each - 1) == 0 else 0


def _scales(
    leading: tuple[int, ...], rows: int, columns: int, block: tuple[int, int]
) -> tuple[int, ...]:
    return (*leading, -(-rows // block[0]), -(-columns // block[1]))


def _misfit(
    label: str,
    code: Tensor,
    shape: tuple[int, ...],
    scale: Tensor,
    block: tuple[int, int] | None,
) -> CheckpointError:
    fit, way = "which does not fit", "Download or copy the model again."
    if block:
        fit += f" for blocks of {block[0]} x {block[1]}"
    elif scale.size > 1:
        way = "Put its own config.json beside it, which states the size of a block."
    return CheckpointError(
        f"{label}: quantised tensor {shown(code.name)} has shape {shape}, and its scale"
        f" {shown(scale.name)} has shape {scale.shape}, {fit}. {way}"
    )


def _called(name: str, grid: Grid, shape: tuple[int, ...]) -> str:
    down, across = grid.block
    if down * across >= math.prod(shape) and (down, across) != BLOCK:
        return f"{name}, a scale a tensor"
    if down == 1 and across == grid.columns:
        return f"{name}, a scale a row"
    if down == 1:
        return f"{name}, groups of {across}"
    return f"{name}, blocks of {down} x {across}"
