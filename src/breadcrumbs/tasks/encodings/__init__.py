"""How the values of a block are written: name -> encoding. One file each.

An encoding turns the fine-tuned weights at the kept places into bytes and back, block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from breadcrumbs.errors import CheckpointError


@dataclass(frozen=True)
class Encoding:
    """encode: (values, the base's weights there) -> (code, bytes).

    decode: (code, bytes, number, dtype, the base's weights there) -> values; raises CheckpointError
    without the place, and makes nothing larger than ``number`` values need. The base's weights are
    None unless ``needs_base``. dtype: of the fine-tuned weights -> that of what is decoded, a name
    in the safetensors format. lossless: whether that is the same.
    """

    name: str
    encode: Callable[[np.ndarray, np.ndarray | None], tuple[int, bytes]]
    decode: Callable[[int, memoryview, int, np.dtype, np.ndarray | None], np.ndarray]
    lossless: bool
    needs_base: bool = False
    dtype: Callable[[str], str] = lambda dtype: dtype


def get(name: object) -> Encoding:
    """Return the encoding of that name; CheckpointError if this version knows none."""
    from breadcrumbs.tasks.encodings.exact import EXACT

    known = {encoding.name: encoding for encoding in (EXACT,)}
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(
            f"there is no encoding {name!r}. There are {', '.join(known)}; a newer version of"
            " Breadcrumbs may know more."
        )
    return known[name]
