"""From the names of one model to those of another by their prefixes: which ways there are.

A way takes one prefix from a name and puts another there; either may be empty. Ways are found from
the names themselves, not from a list of prefixes: two names that end alike differ by what stands
before. All of it is linear in the number of names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from breadcrumbs.checkpoint.stack import LAYER

#: Names that ways are looked for with, spread over all; ways that are weighed; names that may end
#: like one of them, beyond which the end says nothing.
SAMPLES, WEIGHED, ALIKE = 128, 12, 16

_PARTS = re.compile(r"[./]")
_WORDS = re.compile(r"[^A-Za-z]+")
#: What a part of a model is for, as words of its name tell.
_KINDS = {
    "images": {"vision", "visual", "image", "images", "img", "siglip", "vit", "video"},
    "sound": {"audio", "speech", "whisper"},
    "text": {"language", "text", "llm"},
}


@dataclass(frozen=True, order=True)
class Way:
    """A prefix that a name loses, and one that it gets; both end with a dot or are empty."""

    gone: str
    added: str

    def of(self, name: str) -> str | None:
        """Return the new name; None for one without the prefix."""
        return self.added + name[len(self.gone) :] if name.startswith(self.gone) else None

    @property
    def replaces(self) -> bool:
        """Whether both prefixes are there."""
        return bool(self.gone and self.added)

    @property
    def crosses(self) -> bool:
        """Whether it leads between parts for images, for sound, and for anything else."""
        first, second = kind(self.gone), kind(self.added)
        return first != second and bool({first, second} & {"images", "sound"})

    @property
    def contradicts(self) -> bool:
        """Whether the prefixes say that they are of different things: kinds, or layers."""
        first, second = LAYER.findall(self.gone), LAYER.findall(self.added)
        if first and second and first != second:
            return True
        return self.crosses and bool(kind(self.gone) and kind(self.added))

    @property
    def agrees(self) -> bool:
        """Whether both prefixes say that they are for the same thing."""
        return kind(self.gone) == kind(self.added) != ""


@dataclass(frozen=True)
class Fit:
    """Where a way leads. pairs: names -> names that are there, and fit; both each once.

    misfits: pairs that do not fit. lost: names that have the prefix and lead nowhere. uncovered:
    names with the other prefix that nothing leads to.
    """

    way: Way
    pairs: dict[str, str]
    misfits: int
    lost: int
    uncovered: int

    @property
    def numbered(self) -> bool:
        """Whether layers are among what fits: heads that are called alike are often others."""
        start = len(self.way.gone)
        return any(LAYER.search(name[start:]) for name in self.pairs)

    @property
    def whole(self) -> bool:
        """Whether all under one prefix is all under the other."""
        return not (self.misfits or self.lost or self.uncovered)


def kind(prefix: str) -> str:
    """Return what a prefix says that it is of: images, sound, text; empty if nothing."""
    words = set(_WORDS.split(prefix.lower()))
    return next((what for what, known in _KINDS.items() if words & known), "")


def ways(names: Sequence[str], known: Collection[str]) -> list[Way]:
    """Return the likeliest ways from names to known ones, the likeliest first.

    For each of some names those known ones count that end as it does for the longest part.
    """
    step = max(1, len(names) // SAMPLES)
    picked = names[::step]
    ends: dict[str, list[str]] = {tail: [] for name in picked for tail in tails(name)}
    for name in known:
        for tail in tails(name):
            found = ends.get(tail)
            if found is not None and len(found) <= ALIKE:
                found.append(name)
    votes: Counter[Way] = Counter()
    for name in picked:
        tail = next((tail for tail in tails(name) if ends[tail]), None)
        if tail is None or len(ends[tail]) > ALIKE:
            continue
        gone = name[: len(name) - len(tail)]
        votes.update(Way(gone, other[: len(other) - len(tail)]) for other in ends[tail])
    found = sorted(votes, key=lambda way: (-votes[way], way))
    return [way for way in found if way.gone != way.added][:WEIGHED]


def tails(name: str) -> Iterable[str]:
    """Yield the ends of a name at its dots, the longest, itself, first."""
    yield name
    for match in _PARTS.finditer(name):
        yield name[match.end() :]


def weighed(
    way: Way, names: Iterable[str], known: Collection[str], fits: Callable[[str, str], bool]
) -> Fit:
    """Return where a way leads from all ``names``. fits: whether one may stand for the other."""
    pairs: dict[str, str] = {}
    misfits = lost = 0
    for name in names:
        new = way.of(name)
        if new is None:
            continue
        if new not in known:
            lost += 1
        elif fits(name, new):
            pairs[name] = new
        else:
            misfits += 1
    under = sum(name.startswith(way.added) for name in known)
    return Fit(way, pairs, misfits, lost, under - len(pairs) - misfits)
