"""Arithmetic on flat arrays, nothing else, in packages that give the same bits.

`protocol` says what a package offers. Whoever asks for kernels gets one of `PACKAGES`, or one that
is installed under the entry point group ``breadcrumbs.kernels``, by its name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

from breadcrumbs.errors import RecipeError, sentence, suggestion
from breadcrumbs.kernels.protocol import OPERATIONS, Kernels

#: The packages by the names they are asked for: NumPy, and C where it is compiled.
PACKAGES = {name: f"{__name__}.{name}" for name in ("numpy", "native")}
AUTO, GROUP = "auto", "breadcrumbs.kernels"


def choose(which: str = AUTO, wide: bool = False) -> Kernels:
    """Return the kernels of that name; the bits of all are the same.

    which: the name of a package, or ``auto``: the native ones, or NumPy's where none are built.
    wide: whether raw weights are float64, which are NumPy's. RecipeError if the native ones are
    asked for, and are not built.
    """
    which = _resolved(which)
    return _package("numpy" if wide and which == "native" else which)


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
        if which in (AUTO, *PACKAGES):
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


def flips() -> ModuleType:
    """Return the kernels that change weights in place."""
    return importlib.import_module(f"{PACKAGES[_resolved(AUTO)]}.flips")


_loaded: dict[str, Kernels] = {}
_unsaid: list[str] = []


def _resolved(which: str) -> str:
    if which != AUTO:
        return which
    return "numpy" if missing() else "native"


def _package(name: str) -> Kernels:
    """Return the package of that name; RecipeError if there is none, or it lacks operations."""
    if name in _loaded:
        return _loaded[name]
    check(name)
    if name == "native" and missing():
        raise RecipeError(f"{missing()} Or take the kernels 'numpy'.")
    if name in PACKAGES:
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
