"""Regular expressions that most programs never ask for."""

from __future__ import annotations

import re
from functools import cached_property


class Pattern:
    """A regular expression that is compiled when it is first asked for.

    Compiling the long ones takes longer than a small merge.
    """

    def __init__(self, text: str, flags: int = 0):
        self._text, self._flags = text, flags

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._text, self._flags)

    def match(self, text: str) -> re.Match[str] | None:
        return self._compiled.match(text)

    def fullmatch(self, text: str) -> re.Match[str] | None:
        return self._compiled.fullmatch(text)

    def search(self, text: str) -> re.Match[str] | None:
        return self._compiled.search(text)
