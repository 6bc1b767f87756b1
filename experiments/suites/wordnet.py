"""WordNet: what a word means, and the class of meanings that it belongs to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from experiments.suites.splits import Example, key, order

#: The lexicographers' files, by number.
FILES = """
    adjective pertainym adverb tops act animal artifact attribute body cognition communication event
    feeling food group location motive object person phenomenon plant possession process quantity
    relation shape state substance time body change cognition communication competition consumption
    contact creation emotion motion perception possession social stative weather participle
"""


@dataclass(frozen=True)
class Synset:
    """A meaning. file: the lexicographers' file; above: the synset that it is a kind of, or ""."""

    name: str
    file: str
    above: str
    gloss: str


@cache
def synsets(folder: Path, part: str) -> Mapping[str, Synset]:
    """Return the synsets of a part of speech (noun, verb, adj, adv), by their place in the file."""
    text = (folder / f"usr/share/wordnet/data.{part}").read_text(encoding="utf-8")
    return dict(parse(text))


def parse(text: str) -> Iterator[tuple[str, Synset]]:
    """Yield the place and the synset of each line of a data file.

    The gloss is the definition without its examples. A synset of several hypernyms is filed under
    the first.
    """
    files = FILES.split()
    for line in text.splitlines():
        if line.startswith(" "):  # the licence
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        words = int(fields[3], 16)
        pointers = 4 + 2 * words
        above = ""
        for number in range(int(fields[pointers])):
            kind, place = fields[pointers + 1 + 4 * number :][:2]
            if kind in ("@", "@i"):
                above = place
                break
        meaning = gloss.split('; "')[0].strip()
        yield fields[0], Synset(fields[4], files[int(fields[1])], above, meaning)


def files(folder: Path, part: str, least: int) -> Iterator[Example]:
    """Yield the glosses of the lexicographers' files that have at least so many."""
    found = synsets(folder, part).values()
    sizes = Counter(synset.file for synset in found)
    for synset in found:
        if sizes[synset.file] >= least and synset.file != "tops":
            yield Example(synset.gloss, synset.file)


def parts(folder: Path) -> Iterator[Example]:
    """Yield the glosses of nouns, verbs, adjectives and adverbs."""
    for part, name in (("noun", "noun"), ("verb", "verb"), ("adj", "adjective"), ("adv", "adverb")):
        for synset in synsets(folder, part).values():
            yield Example(synset.gloss, name)


def kinds(found: Mapping[str, Synset], file: str, names: Iterable[str]) -> Iterator[Example]:
    """Yield the glosses of all that is one of the named nouns; of several, the nearest.

    ValueError if a name stands for no synset of the lexicographers' file, or for several.
    """
    classes = {}
    for name in names:
        places = [at for at, synset in found.items() if (synset.name, synset.file) == (name, file)]
        if len(places) != 1:
            raise ValueError(f"WordNet has {len(places)} synsets {name!r} among {file}.")
        classes[places[0]] = name
    for synset in found.values():
        above = synset.above
        while above and above not in classes:
            above = found[above].above
        if above:
            yield Example(synset.gloss, classes[above])


def classes(found: Mapping[str, Synset], least: int) -> dict[str, list[str]]:
    """Return the lowest synsets with at least ``least`` glosses below them, and those glosses.

    Neighbours in the hierarchy are neighbours in the answer.
    From the leaves upwards: what lies below a synset makes a class once it is enough; what is not
    goes on to the synset above, so each gloss is in one class at most. Glosses that occur
    twice are in none.
    """
    below = defaultdict(list)
    for place, synset in found.items():
        below[synset.above].append(place)
    times = Counter(key(synset.gloss) for synset in found.values())
    upwards, ahead = [], list(below[""])
    while ahead:
        place = ahead.pop()
        upwards.append(place)
        ahead += below[place]
    gathered: dict[str, list[str]] = {}
    made = {}
    for place in reversed(upwards):
        glosses = []
        for child in sorted(below[place]):
            glosses += gathered.pop(child)
            if times[key(found[child].gloss)] == 1:
                glosses.append(found[child].gloss)
        if len(glosses) >= least:
            made[place], glosses = glosses, []
        gathered[place] = glosses
    return made


@cache
def sequence(folder: Path, tasks: int, size: int, least: int) -> list[list[Example]]:
    """Return the examples of tasks of ``size`` classes each, drawn from the nouns and the verbs.

    The classes of a task are neighbours in the hierarchy, for the base alone tells apart what is
    put together at random; the tasks come in the order of a hash. A class is called by the first
    word of its synset, and by its place where others are too.
    """
    glosses, words = {}, {}
    for part in ("noun", "verb"):
        found = synsets(folder, part)
        for place, below in classes(found, least).items():
            glosses[f"{part} {place}"] = below
            words[f"{part} {place}"] = found[place].name
    if len(glosses) < tasks * size:
        raise ValueError(f"WordNet has {len(glosses)} classes, {tasks} tasks need {tasks * size}.")
    times = Counter(words.values())
    names = {at: word if times[word] == 1 else f"{word} ({at})" for at, word in words.items()}
    drawn = set(order("classes", glosses)[: tasks * size])
    kept = [at for at in glosses if at in drawn]
    cut = {kept[start]: kept[start : start + size] for start in range(0, len(kept), size)}
    return [
        [Example(gloss, names[at]) for at in cut[first] for gloss in glosses[at]]
        for first in order("tasks", cut)
    ]
