"""What passes have found, noted beside the output, so that a resumed merge does not pass again."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace

from blake3 import blake3

from breadcrumbs.checkpoint.writer import Writer
from breadcrumbs.engine.facts import Facts
from breadcrumbs.plan import Sizes


class Noted:
    """The facts of a merge in the journal of its output, which knows of what recipe and inputs.

    sizes: facts are of chunks of that size alone. How much memory there was does not matter.
    """

    def __init__(self, writer: Writer, sizes: Sizes):
        said = json.dumps(asdict(replace(sizes, budget=0, begun=0)))
        self.writer, self._sizes = writer, blake3(said.encode()).hexdigest(8)

    def facts(self) -> Facts:
        """Return what an earlier run noted, without what is damaged or of other sizes."""
        found = Facts()
        for text in self.writer.remembered():
            sizes, _, mine = text.partition("\n")
            if sizes == self._sizes:
                with contextlib.suppress(ValueError):
                    found.add(Facts.of_text(mine))
        return found

    def note(self, facts: Facts) -> None:
        """Note what a pass has found, if it is plain data."""
        with contextlib.suppress(TypeError):
            self.writer.remember(f"{self._sizes}\n{facts.to_text()}")
