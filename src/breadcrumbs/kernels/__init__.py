"""Arithmetic on flat arrays, nothing else, in packages that give the same bits.

`protocol` says what a package offers. Whoever asks for kernels gets one of `PACKAGES`, or one that
is installed under the entry point group ``breadcrumbs.kernels``, by its name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import cast

from breadcrumbs.errors import RecipeError, sentence, suggestion
from breadcrumbs.kernels.protocol import OPERATIONS, Kernels

#: From so many entries of all models on, loading Numba (0.3 s) pays for itself.
WORTH_COMPILING = 30_000_000
#: The packages by the names they are asked for: NumPy, and Numba for what is large.
PACKAGES = {"plain": f"{__name__}.numpy", "compiled": f"{__name__}.numba"}
#: Of these, those that do not take raw weights of float64; NumPy's do.
NARROW = {"compiled"}
AUTO, GROUP = "auto", "breadcrumbs.kernels"


def will_compile(entries: int, which: str = AUTO) -> bool:
    """Return whether work on ``entries`` begins with compiling kernels, which happens once.

    which: as for `choose`.
    """
    compiled = which == "compiled" or (which == AUTO and entries >= WORTH_COMPILING)
    folder = Path(__file__).parent / "numba"
    writable = os.access(folder, os.W_OK)  # else they are kept somewhere else
    kept = folder / "__pycache__"
    return compiled and writable and not any(kept.glob("sums.*.nbi"))


def choose(entries: int, which: str = AUTO, wide: bool = False) -> Kernels:
    """Return the kernels for work on ``entries`` weights of models; same bits whichever they are.

    which: the name of a package, or ``auto``, which takes the compiled ones for larger work.
    wide: whether raw weights are float64.
    """
    if which == AUTO:
        which = "compiled" if entries >= WORTH_COMPILING else "plain"
    return _package("plain" if wide and which in NARROW else which)


def loaded() -> Kernels:
    """Return the kernels that this process has loaded already: the compiled ones if it can be."""
    return _package("compiled" if "compiled" in _loaded else "plain")


def check(which: str) -> None:
    """Raise RecipeError unless ``which`` names kernels; loads none."""
    if which not in (AUTO, *PACKAGES) and which not in _installed():
        known = [AUTO, *PACKAGES, *_installed()]
        raise RecipeError(
            f"there are no kernels {which!r}.{suggestion(which, known)}"
            f" Give one of: {', '.join(known)}."
        )


@contextlib.contextmanager
def explained(which: str) -> Iterator[None]:
    """Make one line of what kernels of another package say they cannot do."""
    try:
        yield
    except NotImplementedError as error:
        if which in (AUTO, "plain", "compiled"):
            raise
        at = error.__traceback__
        while at and at.tb_next:
            at = at.tb_next
        name = at.tb_frame.f_code.co_name if at else "?"
        reason = " ".join(str(error).split())
        said = f": {sentence(reason)}" if reason else "."
        raise RecipeError(
            f"the kernels {which!r} do not have {name!r}{said} Take others, such as {AUTO!r}."
        ) from error


@functools.cache
def load(name: str) -> ModuleType:
    """Return a module of compiled kernels, which are kept where Numba finds a folder for them."""
    _forget_old()
    try:
        return importlib.import_module(name)
    except RuntimeError:  # no such folder
        import tempfile

        from numba.core import config

        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="breadcrumbs-kernels-")
        config.reload_config()
        return importlib.import_module(name)


def flips() -> ModuleType:
    """Return the compiled kernels that change weights in place, which are always these."""
    return load(f"{PACKAGES['compiled']}.flips")


_loaded: dict[str, Kernels] = {}


def _package(name: str) -> Kernels:
    """Return the package of that name; RecipeError if there is none, or it lacks operations."""
    if name in _loaded:
        return _loaded[name]
    check(name)
    if name == "compiled":
        found = load(PACKAGES[name])
    elif name in PACKAGES:
        found = importlib.import_module(PACKAGES[name])
    else:
        found = _installed()[name].load()
    ours = found.__name__.startswith(__name__)  # asking loads what may never be used
    lacks = [] if ours else [one for one in OPERATIONS if not hasattr(found, one)]
    if lacks:
        raise RecipeError(
            f"the kernels {name!r} lack {', '.join(lacks)}. For what they do not do, let them"
            " import NumPy's."
        )
    _loaded[name] = cast(Kernels, found)
    return _loaded[name]


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {one.name: one for one in importlib.metadata.entry_points(group=GROUP)}


def _forget_old() -> None:
    """Delete kernels that were compiled before a source changed; Numba only looks at their own."""
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime for path in folder.rglob("*.py"))
    for kept in (folder / "numba" / "__pycache__").glob("*.nb?"):
        with contextlib.suppress(OSError):
            if kept.stat().st_mtime < newest:
                kept.unlink()
