"""Plain data read from YAML, checked: every error says where, what was found, what to write."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from breadcrumbs.errors import SuiteError, suggestion
from breadcrumbs.recipe import yaml_loader


def read(path: Path) -> Any:
    """Return what a YAML file holds; SuiteError with the line where it is none."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: cannot be read as text ({error}). Give a YAML file.") from None
    try:
        return yaml.load(text, Loader=yaml_loader())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SuiteError(f"{path}, line {line}: not YAML: {error.problem}.") from None
    except Exception as error:  # the YAML library's constructors raise all kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SuiteError(f"{path}: not YAML that a suite is made of: {reason}") from None


def mapping(value: Any, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    """Return a mapping with text keys, all of them ``known``."""
    if not isinstance(value, Mapping):
        raise SuiteError(f"{where}: found {kind(value)} where `key: value` lines belong.")
    known = None if known is None else list(known)
    for key in value:
        if not isinstance(key, str):
            raise SuiteError(f"{where}: the key {kind(key)} is no text. Put it in quotes.")
        if known is not None and key not in known:
            raise SuiteError(
                f"{where}: unknown key {key!r}. Known are {', '.join(known)}."
                f"{suggestion(key, known)}"
            )
    return dict(value)


def items(value: Any, where: str) -> list[Any]:
    """Return a list that is not empty."""
    if not isinstance(value, list | tuple) or not value:
        raise SuiteError(f"{where}: found {kind(value)} where a list with entries belongs.")
    return list(value)


def text(value: Any, where: str) -> str:
    """Return a text that is not empty, of one line."""
    if not isinstance(value, str) or not value:
        advice = " Put it in quotes." if isinstance(value, bool | int | float) else ""
        raise SuiteError(f"{where}: found {kind(value)} where a text belongs.{advice}")
    if value.splitlines() != [value] or "\0" in value:
        raise SuiteError(f"{where}: {kind(value)} is not a text of one line.")
    return value


def choice(value: Any, where: str, known: Iterable[str]) -> str:
    """Return one of ``known``."""
    known = list(known)
    if value not in known:
        raise SuiteError(
            f"{where}: {kind(value)} is not possible. Give one of {', '.join(known)}."
            f"{suggestion(str(value), known)}"
        )
    return value


def whole(value: Any, where: str) -> int:
    """Return a whole number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SuiteError(f"{where}: {kind(value)} is not a whole number from 0 on.")
    return value


def kind(value: Any) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "nothing"
    shown = reprlib.repr(value)  # which stops in time, however deep aliases nest
    return shown if len(shown) <= 60 else f"a {type(value).__name__}"
