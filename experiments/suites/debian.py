"""Debian's list of packages: what a package is for, in one line, and how it is filed."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

from experiments.suites.splits import Example


def sections(folder: Path, names: Iterable[str]) -> Iterator[Example]:
    """Yield descriptions of the packages of these sections; the group is the source package."""
    wanted = set(names)
    for fields in stanzas(_read(folder)):
        section = fields.get("Section", "").rsplit("/", 1)[-1]
        if section in wanted:
            yield Example(fields["Description"], section, source(fields))


def tagged(folder: Path, facet: str, values: Iterable[str]) -> Iterator[Example]:
    """Yield descriptions of the packages that have exactly one of these values of a facet."""
    wanted = set(values)
    for fields in stanzas(_read(folder)):
        tags = (tag.strip().partition("::") for tag in fields.get("Tag", "").split(","))
        found = {value for name, _, value in tags if name == facet} & wanted
        if len(found) == 1:
            yield Example(fields["Description"], found.pop(), source(fields))


def source(fields: dict[str, str]) -> str:
    """Return the name of the source that a package is built from."""
    return fields.get("Source", fields["Package"]).split()[0]


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each package that has a description: its first line; tags in one line."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if not line.startswith(" "):
                name, _, value = line.partition(":")
                fields[name] = value.strip()
            elif name == "Tag":
                fields[name] += " " + line.strip()
        if fields.get("Description") and "Package" in fields:
            yield fields


def _read(folder: Path) -> str:
    return gzip.decompress((folder / "packages.gz").read_bytes()).decode("utf-8")
