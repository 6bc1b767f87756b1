"""Whether the library is there, whole, of this version, and no older than its sources."""

from __future__ import annotations

import ctypes
import functools
import struct
from pathlib import Path

from breadcrumbs.kernels.native import library
from breadcrumbs.version import __version__

COMMAND = "python -m breadcrumbs.kernels.native.build"
#: Sources are beside the library where both are worked on; an installed package has none.
SOURCES = Path(__file__).parent / "c"


@functools.cache
def problem() -> str:
    """Return why the library cannot serve, in a line that says what to do; "" if it can."""
    checkout = SOURCES.is_dir()
    again = f"Run: {COMMAND}" if checkout else "Install breadcrumbs again."
    path = library.PATH
    if not path.exists():
        if checkout:
            return f"the native kernels are not built. {again}"
        return "this install could not compile the native kernels. Install it again with a compiler"
    if not _is_whole(path):
        return f"{path} is not a whole library. {again}"
    try:
        found = library.library()
        found.breadcrumbs_identity.restype = ctypes.c_char_p
        version, _, digest = found.breadcrumbs_identity().decode().partition(" ")
    except (OSError, AttributeError) as error:
        return f"the native kernels cannot be loaded ({' '.join(str(error).split())}). {again}"
    if version != __version__:
        return f"{path} is of version {version}, and this is {__version__}. {again}"
    if checkout and digest != _of_sources():
        return f"the native kernels are not those of their sources. {again}"
    library.level()  # which says what is wrong with another one
    return ""


def _of_sources() -> str:
    from breadcrumbs.kernels.native import build  # which comes with the sources

    return build.digest()


def _is_whole(path: Path) -> bool:
    """Return whether a library reaches to its last table: on Linux, loading a shorter one crashes.

    What other systems load, they judge themselves.
    """
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return len(head) == 64
    (table,), (size, number) = (
        struct.unpack_from("<Q", head, 40),
        struct.unpack_from("<HH", head, 58),
    )
    return path.stat().st_size >= table + size * number
