"""Task vector quantisation: codes of b bits from the least to the largest entry of the block.

The codes are those of the transform `tvq` (`breadcrumbs.methods.published.tvq`, Kim et al.,
arXiv:2503.06921), whose range is the tensor's. A block begins with its range (float64).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from breadcrumbs.methods.parameters import Integer, Values
from breadcrumbs.methods.published import tvq
from breadcrumbs.taskfile.encodings import codes
from breadcrumbs.taskfile.encodings.kind import Encoding, Kind
from breadcrumbs.taskfile.encodings.signed import ends


def _encode(values: np.ndarray, base: np.ndarray | None, bits: int) -> tuple[int, bytes]:
    assert base is not None
    tau = values.astype(np.float64) - base.astype(np.float64)
    low, high = tau.min(), tau.max()
    code, data = codes.write(tvq.codes(tau, (low, high), bits).astype(np.uint8), bits)
    return code, np.array([low, high], "<f8").tobytes() + data


def _decode(
    code: int, data: memoryview, number: int, dtype: np.dtype, base: np.ndarray | None, bits: int
) -> np.ndarray:
    assert base is not None
    (low, high), rest = ends(data)
    found = codes.read(code, rest, number, bits).astype(np.float64)
    tau = tvq.restored(found, (np.float64(low), np.float64(high)), bits)
    return (base.astype(np.float64) + tau).astype(dtype)


def _make(name: str, values: Values) -> Encoding:
    bits = values["bits"]
    return Encoding(name, partial(_encode, bits=bits), partial(_decode, bits=bits), False, True)


KIND = Kind(
    "codes of a few bits from the least to the largest entry",
    _make,
    {"bits": Integer(4, 1, "bits of a code", 8)},
)
