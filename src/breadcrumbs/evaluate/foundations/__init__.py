"""The kinds of models that tasks can be scored with, by name, or written in a Python file."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from breadcrumbs.errors import SuiteError, listing, suggestion
from breadcrumbs.evaluate.foundations.causal import Causal
from breadcrumbs.evaluate.foundations.clip import Clip
from breadcrumbs.evaluate.foundations.foundation import Foundation
from breadcrumbs.evaluate.foundations.sentence import Sentence
from breadcrumbs.evaluate.foundations.t5 import T5

__all__ = ["KINDS", "make"]

#: kind -> what makes such a foundation of its settings.
KINDS: dict[str, type] = {kind.kind: kind for kind in (Sentence, Clip, T5, Causal)}

_DATA = ("kind", "settings")
_METHODS = ("load", "prepare", "head", "logits", "loss")


def make(declared: str | Path | Mapping[str, Any], folder: Path | None = None) -> Foundation:
    """Return the foundation that a suite declares.

    declared: a kind (a key of `KINDS`); a mapping of ``kind`` and settings; or the path of a Python
    file that sets ``FOUNDATION``. folder: what relative paths begin at. SuiteError.
    """
    if isinstance(declared, Mapping):
        given = {str(key): value for key, value in declared.items()}
        kind = given.pop("kind", None)
        if not isinstance(kind, str):
            raise SuiteError(f"foundation: has no kind. Give kind: one of {', '.join(KINDS)}.")
    elif isinstance(declared, str | Path):
        kind, given = str(declared), {}
    else:
        raise SuiteError(f"foundation: {declared!r} is not a kind. Give one of {', '.join(KINDS)}.")
    if kind.endswith(".py"):
        if given:
            raise SuiteError(f"{kind}: a Python file takes no settings. Write them in the file.")
        return _of_file((folder or Path()) / kind)
    if kind not in KINDS:
        raise SuiteError(
            f"foundation: there is no kind {kind!r}.{suggestion(kind, KINDS)} There are"
            f" {', '.join(KINDS)}; or give a Python file that sets FOUNDATION."
        )
    return KINDS[kind](given, folder)


class _OfFile:
    """A foundation of a Python file, whose content is among the settings: results depend on it."""

    def __init__(self, inner: Any, source: bytes, path: Path):
        self._inner, self._path = inner, path
        #: Unless told, heads depend on training rows, so that none is kept when those change.
        self.trains_heads = bool(getattr(inner, "trains_heads", True))
        self.settings = {**inner.settings, "code": blake3(source).hexdigest()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path: another process runs the file itself."""
        return _of_file, (self._path,)

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # being copied, and not made yet
            raise AttributeError(name)
        return getattr(self._inner, name)


def _of_file(path: Path) -> Any:
    try:
        source = path.read_bytes()
        found = runpy.run_path(str(path))
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from None
    except Exception as error:  # whatever the user's code raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SuiteError(f"{path}: this foundation cannot be loaded: {reason}") from error
    if "FOUNDATION" not in found:
        raise SuiteError(f"{path}: sets no FOUNDATION. Set it to an object with {_wanted()}.")
    inner = found["FOUNDATION"]
    if isinstance(inner, type):
        raise SuiteError(f"{path}: FOUNDATION is a class. Give FOUNDATION = {inner.__name__}().")
    lacks = [name for name in _METHODS if not callable(getattr(inner, name, None))]
    lacks += [name for name in _DATA if not hasattr(inner, name)]
    if lacks:
        raise SuiteError(f"{path}: FOUNDATION has no {listing(lacks)}. It needs {_wanted()}.")
    if not isinstance(inner.settings, Mapping):
        raise SuiteError(f"{path}: FOUNDATION.settings is not a mapping. Give {{}} for none.")
    return _OfFile(inner, source, path.absolute())


def _wanted() -> str:
    return ", ".join((*_DATA, *(f"{name}()" for name in _METHODS)))
