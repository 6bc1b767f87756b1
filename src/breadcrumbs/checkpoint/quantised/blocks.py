"""Values -> FP8 in blocks, with the scales that given models have where these will do.

Of each block of values, the first of these that there is:

1. codes and scale of a given model, where they stand for just these values;
2. codes under the scale of a given model, where there are such for just these values;
3. the nearest codes under the scale amax / 448, rounded to the dtype of scales, or up to a power
   of two where scales are that.

So what was only read comes back as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from breadcrumbs.checkpoint.quantised.sources import PIECE, Scaled, one_byte, scales_of
from breadcrumbs.checkpoint.tensors import DTYPES, Tensor

LARGEST = 448.0
_NAN = 0x7F
#: The last bits of a float64 that E4M3 lacks, and its exponent and theirs apart, in codes.
_CUT, _BIAS = 49, (1023 - 7) << 3
#: The smallest number with a leading 1, and the step of those below.
_SMALL, _STEP = 2.0**-6, 2.0**-9
_DTYPES = ("F32", "BF16", "F8_E8M0")


def is_block_fp8(tensor: Tensor) -> bool:
    """Return whether a tensor is FP8 with scales of blocks, as `requantised` writes it."""
    it = tensor.source
    return (
        isinstance(it, Scaled)
        and it.code.dtype == "F8_E4M3"
        and it.scale.dtype in _DTYPES
        and it.zero is None
        and len(it.code.shape) >= 2
        and len(it.scale.shape) == len(it.code.shape)
        and (it.grid.rows, it.grid.columns) == it.code.shape[-2:]
        and it.grid.block[0] > 1
    )


def is_like(tensor: Tensor, other: Tensor) -> bool:
    """Return whether blocks of one can take the place of blocks of the other."""
    if not (is_block_fp8(tensor) and is_block_fp8(other)):
        return False
    a, b = tensor.source, other.source
    assert isinstance(a, Scaled) and isinstance(b, Scaled)
    return a.grid == b.grid and a.scale.dtype == b.scale.dtype and tensor.shape == other.shape


@dataclass(frozen=True)
class Blocks:
    """Blocks beside each other. codes: (rows, columns) uint8. scales: (blocks,) float32."""

    codes: np.ndarray
    scales: np.ndarray
    across: int

    @staticmethod
    def read(source: Scaled, first: int, stop: int) -> Blocks:
        """Return those that have the rows ``first`` to ``stop``."""
        grid = source.grid
        codes = np.empty((stop - first, grid.columns), np.uint8)
        source.code.source.read_into(first * grid.columns, codes.reshape(-1).data)
        above = grid.of_row(first)
        scales = scales_of(source.scale, above, above + 1, grid.across)[0]
        return Blocks(codes, scales, grid.block[1])

    def spread(self) -> np.ndarray:
        """Return the scales, one for each column."""
        return np.repeat(self.scales, self.across)[: self.codes.shape[1]]


def requantised(
    values: np.ndarray, same: Sequence[Blocks], scales: Sequence[Blocks], dtype: str, across: int
) -> tuple[Blocks, float]:
    """Return blocks for values (rows, columns), and the sum of squares of what is lost.

    same, scales: blocks of given models at that place, in the order in which they are tried, for
    their codes and for their scales. dtype, across: of scales, and columns of a block.
    """
    columns = values.shape[1]
    starts = np.arange(0, columns, across)
    made = Blocks(np.empty(values.shape, np.uint8), np.empty(starts.size, np.float32), across)
    left = np.ones(starts.size, np.bool_)
    tries = [*((one, _given) for one in same), *((one, _kept) for one in scales)]
    for one, how in tries:
        if not left.any():
            break
        near = _equal(decoded(*how(one, values, slice(0, 1), slice(None))), values[:1])[0]
        for block in np.flatnonzero(left & np.logical_and.reduceat(near, starts)):
            part = slice(starts[block], min(columns, starts[block] + across))
            codes, spread = how(one, values, slice(None), part)
            if _equal(decoded(codes, spread), values[:, part]).all():
                made.codes[:, part], made.scales[block] = codes, spread[0]
                left[block] = False
    if not left.any():
        return made, 0.0
    made.scales[left] = scales_for(values, starts, dtype)[left]
    mine = np.repeat(left, across)[:columns]
    mine = slice(None) if mine.all() else mine
    spread, lost = made.spread()[mine], 0.0
    step = max(1, PIECE // columns)
    for first in range(0, len(values), step):  # few enough for the cache
        rows = slice(first, first + step)
        wanted = values[rows, mine]
        codes = nearest(wanted, spread)
        made.codes[rows, mine] = codes
        rest = decoded(codes, spread)
        rest -= wanted
        rest[~np.isfinite(rest)] = 0
        lost += float(np.einsum("ij,ij->", rest, rest, dtype=np.float64))
    return made, lost


def _given(
    one: Blocks, values: np.ndarray, rows: slice, columns: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Return given codes, and a scale for each column."""
    return one.codes[rows, columns], one.spread()[columns]


def _kept(
    one: Blocks, values: np.ndarray, rows: slice, columns: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes nearest to values under given scales, and a scale for each column."""
    scales = one.spread()[columns]
    usable = np.where((scales > 0) & np.isfinite(scales), scales, np.float32(1))
    return nearest(values[rows, columns], usable), usable


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def scales_for(values: np.ndarray, starts: np.ndarray, dtype: str) -> np.ndarray:
    """Return the scales of blocks that begin in the columns ``starts``, as float32."""
    size = np.abs(values)
    size[~np.isfinite(size)] = 0
    wanted = np.maximum.reduceat(size.max(axis=0), starts).astype(np.float64) / LARGEST
    if dtype == "F8_E8M0":
        part, exponent = np.frexp(wanted)
        power = np.where(wanted == 0, -127, exponent - (part == 0.5))
        return np.ldexp(1.0, np.clip(power, -127, 127)).astype(np.float32)
    scales = wanted.astype(np.float32).astype(DTYPES[dtype]).astype(np.float32)
    return np.where(scales > 0, scales, np.finfo(np.float32).tiny)


def nearest(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the codes (E4M3) whose values times the scales are nearest, ties to even ones."""
    size = np.abs(values, dtype=np.float64)
    size /= scales
    bad = np.isnan(size)
    np.minimum(size, LARGEST, out=size)
    bits = size.view(np.int64)
    codes = (bits >> _CUT) & 1  # to even
    codes += bits
    codes += (1 << (_CUT - 1)) - 1
    codes >>= _CUT
    codes -= _BIAS
    small = size < _SMALL  # numbers without a leading 1
    if small.any():
        codes[small] = np.rint(size[small] / _STEP)
    codes[bad] = _NAN
    codes |= np.signbit(values).astype(np.int64) << 7
    return codes.astype(np.uint8)


def decoded(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return what codes of some scales, one for each column, stand for."""
    flat = _CODING.decode(np.ascontiguousarray(codes).reshape(-1)).reshape(codes.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.multiply(flat, scales, out=flat)


_CODING = one_byte("F8_E4M3", 0)
