"""MXFP4 of gpt-oss: experts whose blocks lie along the inputs, where the tensor has them first.

    X_blocks  U8 (experts, outputs, groups, 16)    two codes in a byte, the low one first
    X_scales  U8 (experts, outputs, groups)        2 ** (byte - 127), of 32 values each
    X         (experts, 32 * groups, outputs)      as `transformers` has it

So a row of the tensor takes a code of every block. Bands of rows are decoded at once and held for
the rows that are asked for next, as bfloat16, which has all of the values.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from breadcrumbs.checkpoint.quantised.sources import E2M1, Dequantised, scales_of, two_in_a_byte
from breadcrumbs.checkpoint.tensors import Tensor

GROUP, PER_GROUP = 32, 16
#: Entries of a band, at least a group of every output.
BAND = 1 << 20
#: Bands that are held for all tensors of a checkpoint: more than threads are at, 2 MB each.
HELD = 16
BANDS_BYTES = HELD * BAND * 2
#: Outputs whose blocks are read at once.
STRIP = 256


@dataclass
class _Band:
    lock: threading.Lock = field(default_factory=threading.Lock)
    bits: np.ndarray | None = None


class Bands:
    """The bands that were asked for last. size: entries of each, at least a group of every output;
    held: how many stay."""

    def __init__(self, size: int = BAND, held: int = HELD) -> None:
        self.size, self.held = size, held
        self._bands: OrderedDict[tuple[int, int, int], _Band] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, of: Experts, expert: int, band: int) -> np.ndarray:
        """Return the bits of a band (rows, outputs), decoded once for all that wait for it."""
        key = id(of), expert, band
        with self._lock:
            found = self._bands.setdefault(key, _Band())
            self._bands.move_to_end(key)
            while len(self._bands) > self.held:
                self._bands.popitem(last=False)
        with found.lock:
            if found.bits is None:
                found.bits = of.decode(expert, band)
            return found.bits


@dataclass(frozen=True, eq=False)
class Experts(Dequantised):
    """The experts of one projection. bands: those of its checkpoint."""

    blocks: Tensor
    scales: Tensor
    bands: Bands
    layout: str = "MXFP4"

    @property
    def shape(self) -> tuple[int, int, int]:
        experts, outputs, groups, _ = self.blocks.shape
        return experts, groups * GROUP, outputs

    @property
    def stored(self) -> int:
        return self.blocks.nbytes + self.scales.nbytes

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What is read."""
        return self.blocks, self.scales

    @property
    def groups(self) -> int:
        """Groups of a band."""
        return max(1, self.bands.size // (GROUP * max(1, self.blocks.shape[1])))

    def fill(self, first: int, out: np.ndarray) -> None:
        _, inputs, outputs = self.shape
        rows, at = self.groups * GROUP, 0
        while at < out.size:
            expert, inside = divmod(first + at, inputs * outputs)
            band, skip = divmod(inside, rows * outputs)
            bits = self.bands.get(self, expert, band).reshape(-1)[skip : skip + out.size - at]
            mine = out[at : at + bits.size].view(np.uint32)
            np.left_shift(bits, 16, out=mine, dtype=np.uint32, casting="unsafe")
            at += bits.size

    def decode(self, expert: int, band: int) -> np.ndarray:
        """Return a band (rows, outputs) of an expert as bits of bfloat16."""
        _, outputs, groups, _ = self.blocks.shape
        first = band * self.groups
        number = min(self.groups, groups - first)
        result = np.empty((number * GROUP, outputs), np.uint16)
        for start in range(0, outputs, STRIP):
            n = min(STRIP, outputs - start)
            row = expert * outputs + start
            raw = np.empty((n, groups, PER_GROUP), np.uint8)
            self.blocks.source.read_into(row * groups * PER_GROUP, raw.reshape(-1).data)
            codes = np.ascontiguousarray(raw[:, first : first + number])
            scales = scales_of(self.scales, row, row + n, groups)[:, first : first + number]
            values = _CODING.decode(codes.reshape(-1)).reshape(n, number, GROUP)
            values *= scales[:, :, None]
            bits = values.reshape(n, -1).view(np.uint16)[:, 1::2]
            result[:, start : start + n] = bits.T
        return result


_CODING = two_in_a_byte(E2M1, PER_GROUP)
