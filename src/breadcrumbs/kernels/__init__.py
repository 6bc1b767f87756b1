"""Arithmetic on flat arrays, nothing else, in packages that give the same bits.

`protocol` says what a package offers. Whoever asks for kernels gets one of `PACKAGES`, or one that
is installed under the entry point group ``breadcrumbs.kernels``, by its name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from breadcrumbs.errors import RecipeError, sentence, suggestion
from breadcrumbs.kernels.protocol import OPERATIONS, Kernels

#: From so many entries of all models on, loading Numba (0.3 s) pays for itself.
WORTH_COMPILING = 30_000_000
#: The packages by the names they are asked for: NumPy, and Numba for what is large.
PACKAGES = {
    "plain": f"{__name__}.numpy",
    "compiled": f"{__name__}.numba",
    "native": f"{__name__}.native",
}
#: Of these, those that do not take raw weights of float64; NumPy's do.
NARROW = {"compiled", "native"}
AUTO, GROUP = "auto", "breadcrumbs.kernels"


def will_compile(entries: int) -> bool:
    """Return whether work on ``entries`` begins with compiling kernels, which happens once."""
    folder = Path(__file__).parent / "numba"
    writable = os.access(folder, os.W_OK)  # else they are kept somewhere else
    kept = folder / "__pycache__"
    return entries >= WORTH_COMPILING and writable and not any(kept.glob("sums.*.nbi"))


def choose(entries: int, which: str = AUTO, wide: bool = False) -> Kernels:
    """Return the kernels for work on ``entries`` weights of models; same bits whichever they are.

    which: the name of a package, or ``auto``: the native ones, or NumPy's where none are built.
    wide: whether raw weights are float64. RecipeError if the native ones are asked for, and are not
    built.
    """
    which = _resolved(which)
    return _package("plain" if wide and which in NARROW else which)


@functools.cache
def missing() -> str:
    """Return why NumPy's kernels have to do, and what to do about it, in a line; or ""."""
    from breadcrumbs.kernels.native import built

    found = built.problem()
    if found:
        _unsaid.append(f"NumPy's kernels are used, which are slower: {found}")
    return found


def unsaid() -> list[str]:
    """Return what this process has to say about kernels that are missing; it does so once."""
    found = _unsaid[:]
    _unsaid.clear()
    return found


def described(which: str = AUTO) -> str:
    """Return which kernels `choose` takes, the native ones with the level of the processor."""
    which = _resolved(which)
    if which != "native":
        return which
    from breadcrumbs.kernels.native import library

    return f"{which}, {library.level()}"


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
    """Return the kernels that change weights in place."""
    package = PACKAGES["plain" if missing() else "native"]
    return importlib.import_module(f"{package}.flips")


_loaded: dict[str, Kernels] = {}
_unsaid: list[str] = []


def _resolved(which: str) -> str:
    if which != AUTO:
        return which
    return "plain" if missing() else "native"


def _package(name: str) -> Kernels:
    """Return the package of that name; RecipeError if there is none, or it lacks operations."""
    if name in _loaded:
        return _loaded[name]
    check(name)
    if name == "native" and missing():
        raise RecipeError(f"{missing()} Or take kernels 'plain'.")
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


def _installed() -> dict[str, Any]:
    from importlib import metadata  # which takes longer than all of these files

    return {one.name: one for one in metadata.entry_points(group=GROUP)}


def _forget_old() -> None:
    """Delete kernels that were compiled before a source changed; Numba only looks at their own."""
    folder = Path(__file__).parent
    newest = max(path.stat().st_mtime for path in folder.rglob("*.py"))
    for kept in (folder / "numba" / "__pycache__").glob("*.nb?"):
        with contextlib.suppress(OSError):
            if kept.stat().st_mtime < newest:
                kept.unlink()
