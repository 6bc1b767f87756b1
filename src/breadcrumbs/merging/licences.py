"""Which licence a merged model is under: the strictest of its parts, where they go together.

A merged model is a work made of all its parts, so it keeps what each asks for. This sorts the
licences that cards name by what they ask for; it is no legal advice, and the card of a merge says
what was found, so that a person can look.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from breadcrumbs.merging.said import Card

UNKNOWN = "not stated"
#: What a licence asks for, the least first.
NOTHING, NAME, FILES, ALIKE, USE, NO_SALE, NO_CHANGE = range(7)
_SAID = (
    "asks for nothing",
    "asks to keep the notice",
    "asks to keep changed files under it",
    "asks for the same licence",
    "limits what it may be used for",
    "allows no commercial use",
    "allows no changed work",
)
#: Beginnings of ids on the hub, the first that fits; of those that ask for the same, the stricter
#: last. Ids that are not here are not known.
_KINDS = (
    (NO_CHANGE, ("cc-by-nd", "cc-by-nc-nd")),
    (NO_SALE, (
        "intel-research", "h-research", "apple-amlr", "fair-noncommercial", "cc-by-nc-4",
        "cc-by-nc-3", "cc-by-nc-2", "cc-by-nc",
    )),
    (USE, (
        "apple-ascl", "openrail", "bigscience", "bigcode-openrail", "creativeml-openrail",
        "deepfloyd-if", "gemma", "llama",
    )),
    (ALIKE, (
        "ofl-", "odbl", "gfdl", "cc-by-sa", "osl-", "eupl", "cecill-2", "gpl", "agpl",
    )),
    (FILES, ("ms-pl", "ecl-", "cddl", "epl", "cecill-c", "mpl", "lgpl")),
    (NAME, (
        "mit", "isc", "zlib", "ncsa", "postgresql", "bsl-1", "bsd", "artistic", "afl", "openmdw",
        "cdla-permissive", "c-uda", "odc-by", "etalab", "cc-by-2", "cc-by-3", "cc-by-4", "apache",
    )),
    (NOTHING, ("wtfpl", "0bsd", "unlicense", "pddl", "cc0")),
)  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """The licence of a merge. id: for the front matter, empty if no part states one. name: of one
    that is no id of the hub. strictest: of those that are stated and known. conflicts: a line each.
    """

    id: str
    name: str
    link: str
    strictest: str
    conflicts: tuple[str, ...]
    unknown: tuple[str, ...]


def kind(license: str) -> int | None:
    """Return what a licence asks for, as one of the numbers above; None if that is not known."""
    found = _rank(license)
    return found[0] if found else None


def _rank(license: str) -> tuple[int, int] | None:
    """Return how strict a licence is, to be compared; None if it is not known."""
    lower = license.lower()
    for level, starts in _KINDS:
        for place, start in enumerate(starts):
            if lower.startswith(start):
                return level, place
    return None


def of(parts: Mapping[str, Card]) -> Licence:
    """Return the licence of what is made of some parts. parts: by name, what each says."""
    stated = {name: card for name, card in parts.items() if card.license}
    known = {name: c for name, c in stated.items() if kind(c.license) is not None}
    first = max(known.values(), key=lambda card: _rank(card.license) or (0, 0), default=Card())
    conflicts = tuple(_conflicts({name: card.license for name, card in known.items()}))
    unknown = tuple(name for name in parts if name not in stated)
    others = {name: card for name, card in stated.items() if name not in known}
    names = {(card.license, card.license_name) for card in stated.values()}
    if not stated:
        id_, name, link = "", "", ""
    elif unknown:
        id_, name, link = "unknown", "", ""
    elif len(names) == 1:  # also of one that is not known
        one = next(iter(stated.values()))
        id_, name, link = one.license, one.license_name, one.license_link
    elif conflicts or others:
        id_, name, link = "other", "of-the-parts", ""
    else:
        id_, name, link = first.license, first.license_name, first.license_link
    return Licence(id_, name, link, first.license, conflicts, unknown)


def _conflicts(parts: Mapping[str, str]) -> list[str]:
    """Return a line for each pair of licences that cannot both be kept, as far as is known."""
    found = []
    one_of = {license: name for name, license in reversed(list(parts.items()))}
    for license, name in one_of.items():
        if kind(license) == NO_CHANGE:
            found.append(
                f"{name} is under {license}, which {_SAID[NO_CHANGE]}: a merge of it may not be"
                " passed on"
            )
    alike = [license for license in one_of if kind(license) == ALIKE or _is_share_alike(license)]
    for license in alike:
        for other, name in one_of.items():
            level = kind(other) or 0
            clashes = level >= ALIKE and other != license and not _go_together(license, other)
            if clashes and level != NO_CHANGE and (other not in alike or license < other):
                found.append(
                    f"{one_of[license]} is under {license}, which {_SAID[ALIKE]}, and {name} under"
                    f" {other}, which {_SAID[level]}: a merge cannot meet both"
                )
    own = [license for license in one_of if kind(license) == USE and license not in alike]
    for license, other in itertools.pairwise(own):
        found.append(
            f"{one_of[license]} is under {license} and {one_of[other]} under {other}, each with its"
            " own terms of use: what is merged is under both"
        )
    return found


def _is_share_alike(license: str) -> bool:
    return "-sa" in license


def _go_together(license: str, other: str) -> bool:
    """Whether two that ask for the same licence can be kept at once, as far as is known."""
    both = {license, other}
    families = ({"gpl-3.0", "agpl-3.0", "gpl"}, {"cc-by-sa-4.0", "gpl-3.0"})
    return any(both <= family for family in families)


def section(parts: Mapping[str, Card], found: Licence) -> list[str]:
    """Return the lines of a card on licences: none if no part states one."""
    if not any(card.license for card in parts.values()):
        return []
    lines = []
    if found.strictest:
        what = _SAID[kind(found.strictest) or 0]
        lines.append(f"The strictest licence stated is {found.strictest}, which {what}.")
    for conflict in found.conflicts:
        lines.append(f"Conflict: {conflict}.")
    others = [
        f"{name}: {card.license_name or card.license}"
        for name, card in parts.items()
        if card.license and kind(card.license) is None
    ]
    if others:
        lines.append(f"Licences to read, since they are not known here: {'; '.join(others)}.")
    if found.unknown:
        lines.append(f"No licence is stated by {', '.join(found.unknown)}: ask who made them.")
    return lines


def warnings(parts: Mapping[str, Card]) -> list[str]:
    """Return what the user should know before a merge: licences that do not go together."""
    return [f"licences: {line}" for line in of(parts).conflicts]
