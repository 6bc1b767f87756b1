"""What a merged model is made of, under which licences: for its model card and metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from breadcrumbs.merging.card import cell
from breadcrumbs.plan import bounded_yaml
from breadcrumbs.store.history import Entry
from breadcrumbs.store.ledger import Settings, Task

#: Bytes of a card that are read, values in its front matter, characters of a licence.
_LARGEST, _MOST, _LONGEST = 1 << 20, 100_000, 1000
UNKNOWN = "not stated"


def of_folder(folder: Path | None, note: Callable[[str], None] = lambda line: None) -> str:
    """Return the licence that the model card in a folder states, or nothing.

    note: is told of a card that cannot be read.
    """
    if folder is None:
        return ""
    path = folder / "README.md"
    try:
        with open(path, "rb") as file:
            text = file.read(_LARGEST).decode(errors="replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
    except OSError as error:
        note(_unread(path, error.strerror or str(error)))
        return ""
    front, end, _ = text[4:].partition("\n---")
    if not text.startswith("---\n"):
        return ""
    try:
        if not end:
            raise bounded_yaml.YAMLRefused("it has no end")
        said = bounded_yaml.load(front, _MOST)
    except bounded_yaml.YAMLRefused as error:
        note(_unread(path, str(error)))
        return ""
    found = said.get("license") if isinstance(said, dict) else None
    every = found if isinstance(found, list) else [found]
    return ", ".join(one for one in every if isinstance(one, str))[:_LONGEST]


def _unread(path: Path, why: str) -> str:
    """Return the line about a card that says nothing."""
    return (
        f"{path}: its front matter cannot be read ({why}), so no licence is taken from it. Give"
        " --license"
    )


@dataclass(frozen=True)
class Parts:
    """The parts of a revision. base_license: as its card states it, or empty."""

    settings: Settings
    revision: int
    entries: Sequence[Entry]
    tasks: dict[str, Task]
    base_license: str

    def to_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for the metadata."""
        return {
            "store": {
                "revision": self.revision,
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
