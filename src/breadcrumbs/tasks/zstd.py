"""Zstandard frames that are no larger, unpacked, than they may be."""

from __future__ import annotations

import threading

import zstandard

from breadcrumbs.errors import CheckpointError

LEVEL = 3
_own = threading.local()


def compress(data: bytes | memoryview) -> bytes:
    """Return a frame, which says how many bytes it holds."""
    if not hasattr(_own, "compressor"):
        _own.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    return _own.compressor.compress(data)


def decompress(frame: memoryview, most: int) -> bytes:
    """Return what one frame holds; CheckpointError if that is not ``most`` bytes or fewer.

    The size is read before anything is made. A frame that says none is refused.
    """
    if not hasattr(_own, "decompressor"):
        _own.decompressor = zstandard.ZstdDecompressor()
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= most:
            raise CheckpointError(f"has a frame of {size} bytes where at most {most} belong")
        return _own.decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CheckpointError(f"has a frame that cannot be read ({error})") from None
