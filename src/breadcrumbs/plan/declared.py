"""Plain data read from YAML, checked: every error says where, what was found, what to write."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breadcrumbs.errors import BreadcrumbsError, RecipeError, SuiteError, suggestion
from breadcrumbs.plan import bounded_yaml


@dataclass(frozen=True)
class Declared:
    """Checks of what a file declares. what: of which kind it is. error: what is raised.

    Each takes a value and where it stands, and returns the value.
    """

    what: str
    error: type[BreadcrumbsError]

    def read(self, path: Path) -> Any:
        """Return what a YAML file holds; an error with the line where it is none."""
        try:
            return bounded_yaml.load(bounded_yaml.read_text(path))
        except FileNotFoundError:
            raise self.error(
                f"{path}: cannot be read: there is no such file. Give a YAML {self.what}."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(
                f"{path}: cannot be read as text ({error}). Give a YAML {self.what}."
            ) from None
        except bounded_yaml.YAMLRefused as error:
            if error.line:
                raise self.error(f"{path}, line {error.line}: not YAML: {error}.") from None
            raise self.error(f"{path}: not YAML that a {self.what} is made of: {error}.") from None

    def mapping(self, value: Any, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
        """Return a mapping with text keys, all of them ``known``."""
        if not isinstance(value, Mapping):
            raise self.error(f"{where}: found {kind(value)} where `key: value` lines are expected.")
        known = None if known is None else list(known)
        for key in value:
            if not isinstance(key, str):
                raise self.error(f"{where}: the key {kind(key)} is not a text. Put it in quotes.")
            if known is not None and key not in known:
                raise self.error(
                    f"{where}: unknown key {key!r}. Known are {', '.join(known)}."
                    f"{suggestion(key, known)}"
                )
        return dict(value)

    def items(self, value: Any, where: str, *, least: int = 0) -> list[Any]:
        """Return a list with as many entries as there must be."""
        if not isinstance(value, list | tuple) or len(value) < least:
            entries = " with entries" if least else ""
            raise self.error(f"{where}: found {kind(value)} where a list{entries} is expected.")
        return list(value)

    def text(self, value: Any, where: str) -> str:
        """Return a text that is not empty."""
        if not isinstance(value, str) or not value:
            advice = " Put it in quotes." if isinstance(value, bool | int | float) else ""
            raise self.error(f"{where}: found {kind(value)} where a text is expected.{advice}")
        return value

    def line(self, value: Any, where: str) -> str:
        """Return a text that is not empty, of one line."""
        text = self.text(value, where)
        if text.splitlines() != [text] or "\0" in text:
            raise self.error(f"{where}: {kind(text)} is not a text of one line.")
        return text

    def choice(self, value: Any, where: str, known: Iterable[str]) -> str:
        """Return one of ``known``."""
        known = list(known)
        if value not in known:
            raise self.error(
                f"{where}: {kind(value)} is not possible. Give one of {', '.join(known)}."
                f"{suggestion(str(value), known)}"
            )
        return value

    def whole(self, value: Any, where: str) -> int:
        """Return a whole number of 0 or more."""
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(f"{where}: {kind(value)} is not a whole number of 0 or more.")
        return value


RECIPE = Declared("recipe", RecipeError)
SUITE = Declared("suite", SuiteError)


def kind(value: Any) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "nothing"
    shown = reprlib.repr(value)  # which stops in time, however deep aliases nest
    return shown if len(shown) <= 60 else f"a {type(value).__name__}"
