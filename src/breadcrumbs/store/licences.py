"""What a merged model is made of, under which licences: for its model card and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from breadcrumbs.merging.card import cell
from breadcrumbs.merging.licences import UNKNOWN
from breadcrumbs.merging.said import of_folder
from breadcrumbs.store.history import Entry
from breadcrumbs.store.ledger import Settings, Task

__all__ = ["Parts", "of_folder"]


@dataclass(frozen=True)
class Parts:
    """The parts of a revision. base_license: as its card states it, or empty. grams: whether they
    were merged from Grams, which the recipe gives up to rounding."""

    settings: Settings
    revision: int
    entries: Sequence[Entry]
    tasks: dict[str, Task]
    base_license: str
    grams: bool = False

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for the metadata."""
        return {
            "store": {
                "revision": self.revision,
                **({"grams": True} if self.grams else {}),
                "base": {"hash": self.settings.base_hash, "license": self.base_license},
                "tasks": [
                    {
                        "name": entry.name,
                        "weight": entry.weight,
                        "blake3": entry.task,
                        "license": self._said(entry, "license"),
                        "author": self._said(entry, "author"),
                    }
                    for entry in self.entries
                ],
            }
        }

    def to_markdown(self) -> str:
        """Return it as a section of the model card."""
        rows = [(self.settings.base_name, "base", self.base_license, "", self.settings.base_hash)]
        for entry in self.entries:
            more = self._said(entry, "license"), self._said(entry, "author"), entry.task
            rows.append((entry.name, f"{entry.weight:g}", *more))
        table = "\n".join(
            f"| {cell(name)} | {weight} | {cell(license or UNKNOWN)} |"
            f" {cell(author or UNKNOWN)} | `{digest}` |"
            for name, weight, license, author, digest in rows
        )
        return f"""## Parts

Revision {self.revision} of a store of tasks. A merged model is a work made of all of these; look at
what their licences ask for.

| part | weight | licence | author | BLAKE3 |
|---|---|---|---|---|
{table}
"""

    def _said(self, entry: Entry, key: str) -> str:
        return str(self.tasks[entry.task].said.get(key) or "")
