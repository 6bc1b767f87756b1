"""Arithmetic on flat arrays, nothing else: a plain form in NumPy and a compiled one in Numba."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import ModuleType

from breadcrumbs.kernels import plain

#: From so many entries of all models on, loading Numba (0.3 s) pays for itself.
WORTH_COMPILING = 30_000_000


def will_compile(entries: int) -> bool:
    """Return whether work on ``entries`` begins with compiling kernels, which happens once."""
    kept = Path(__file__).parent / "__pycache__"
    writable = os.access(Path(__file__).parent, os.W_OK)  # else they are kept somewhere else
    return entries >= WORTH_COMPILING and writable and not any(kept.glob("compiled.*.nbi"))


def choose(entries: int, which: str = "auto") -> ModuleType:
    """Return the module of kernels for work on ``entries`` weights of models; same bits either way.

    which: ``plain``, ``compiled``, or ``auto``, which takes the compiled ones for larger work.
    """
    if which == "plain" or (which == "auto" and entries < WORTH_COMPILING):
        return plain
    _forget_old()
    try:
        from breadcrumbs.kernels import compiled
    except RuntimeError:  # no folder that Numba could keep compiled kernels in
        import tempfile

        from numba.core import config

        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="breadcrumbs-kernels-")
        config.reload_config()
        from breadcrumbs.kernels import compiled
    return compiled


def of_kept(chosen: ModuleType | None = None) -> ModuleType:
    """Return the kernels for what task files keep that go with those that were chosen.

    Unless told, those that go with what this process has loaded already.
    """
    if chosen is plain or (chosen is None and f"{__name__}.compiled" not in sys.modules):
        from breadcrumbs.kernels import kept

        return kept
    from breadcrumbs.kernels import kept_compiled

    return kept_compiled


def _forget_old() -> None:
    """Delete kernels that were compiled before a source changed; Numba only looks at their own."""
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime for path in folder.glob("*.py"))
    for kept in (folder / "__pycache__").glob("*.nb?"):
        with contextlib.suppress(OSError):
            if kept.stat().st_mtime < newest:
                kept.unlink()
