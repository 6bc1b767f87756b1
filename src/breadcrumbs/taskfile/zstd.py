"""Zstandard frames that are no larger, unpacked, than they may be."""

from __future__ import annotations

import threading

import zstandard

from breadcrumbs.errors import CheckpointError

#: Positions and exponents hardly ever repeat, but few values are frequent. Looking for no repeats
#: but the plainest makes frames smaller here, and three times as fast to write and to read.
_SETTINGS = {"min_match": 7, "hash_log": 6}
_own = threading.local()


def compress(data: bytes | memoryview) -> bytes:
    """Return a frame, which says how many bytes it holds."""
    if not hasattr(_own, "compressor"):
        settings = zstandard.ZstdCompressionParameters.from_level(
            1, source_size=1 << 20, write_content_size=True, **_SETTINGS
        )
        _own.compressor = zstandard.ZstdCompressor(compression_params=settings)
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
