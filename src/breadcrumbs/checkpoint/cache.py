"""What is worth keeping from one run to the next: small files that are whole or count as not there.

All of it can be deleted at any time. A cache that takes nothing, or gives nothing, is no error.
"""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3

_SUM = 32


def folder() -> Path:
    """Return where things are kept: ``$BREADCRUMBS_CACHE``, or the user's cache folder."""
    given = os.environ.get("BREADCRUMBS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "breadcrumbs"


def place(where: Path, kind: str, key: str) -> Path:
    """Return the file of a thing. kind: a folder, such as ``heads``. key: a digest."""
    return where / kind / key


def read(where: Path | None, kind: str, key: str) -> bytes | None:
    """Return what was kept, or None where there is nothing that is whole."""
    if where is None:
        return None
    try:
        data = place(where, kind, key).read_bytes()
    except OSError:
        return None
    total, content = data[:_SUM], data[_SUM:]
    return content if _sum(key, content) == total else None


def write(where: Path | None, kind: str, key: str, content: bytes) -> None:
    """Keep something, whole or not at all."""
    import tempfile

    if where is None:
        return
    path = place(where, kind, key)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_sum(key, content) + content)
        os.replace(temporary, path)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _sum(key: str, content: bytes) -> bytes:
    return blake3(key.encode() + content).digest(_SUM)
