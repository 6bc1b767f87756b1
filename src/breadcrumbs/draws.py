"""Random draws that depend on a key and a position alone: Philox, a counter-based generator.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib

import numpy as np

#: Draws of one step of the counter.
STEP = 8


def draws(key: tuple[object, ...], start: int, n: int) -> np.ndarray:
    """Return draws number ``start`` to ``start + n`` of the stream of ``key``, (n,) uint32."""
    text = "\0".join(str(part) for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    generator = np.random.Philox(key=int.from_bytes(digest, "little"))
    before = start // STEP
    generator.advance(before)
    skip = start - before * STEP
    words = generator.random_raw(-(-(skip + n) // 2)).astype("<u8", copy=False)
    return words.view("<u4")[skip : skip + n].astype(np.uint32, copy=False)
