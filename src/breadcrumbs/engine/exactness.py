"""Whether float64 holds the sums of a merge exactly, whatever the order they are added in."""

from __future__ import annotations

import math

#: Bits of precision below the leading one.
PRECISION = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7, "F8_E4M3": 3, "F8_E5M2": 2}


def provably_exact(smallest: float, largest: float, models: int, precision: int) -> bool:
    """Return whether float64 holds every sum of ``models`` differences of such weights exactly.

    smallest, largest: bounds of the magnitudes of the nonzero weights. Every difference is a
    multiple of the last place of the smallest, and below twice the largest.
    """
    if largest == 0:
        return True
    bits = math.frexp(largest)[1] - math.frexp(smallest)[1] + precision
    return bits + 2 + math.ceil(math.log2(max(models, 1))) <= 53
