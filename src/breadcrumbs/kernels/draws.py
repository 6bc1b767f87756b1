"""Random draws that depend on a key and a position alone: SplitMix64 as a counter-based generator.

Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. Word j of a
stream is a mix of ``key + (j + 1) * GOLDEN``, and gives draws 2 j (its lower half) and 2 j + 1.
"""

from __future__ import annotations

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)


def stream(*parts: object) -> np.uint64:
    """Return the key of the stream that is named by ``parts``."""
    text = "\0".join(str(part) for part in parts)
    import hashlib

    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def draws(key: np.uint64, start: int, n: int) -> np.ndarray:
    """Return draws number ``start`` to ``start + n`` of the stream of ``key``, (n,) uint32."""
    first, skip = divmod(start, 2)
    words = np.arange(first + 1, first + 1 + -(-(skip + n) // 2), dtype=np.uint64)
    words *= GOLDEN
    words += key
    words ^= words >> np.uint64(30)
    words *= FIRST
    words ^= words >> np.uint64(27)
    words *= SECOND
    words ^= words >> np.uint64(31)
    return (
        words.astype("<u8", copy=False).view("<u4")[skip : skip + n].astype(np.uint32, copy=False)
    )
