"""From what was read to rows of three splits: cleaned, without duplicates, seeded.

Nothing here draws random numbers. Rows and groups lie in the order of a hash of the seed and of
themselves, so a row's place depends neither on the platform nor on the order of the files, and all
that changes when a row is added is its neighbours.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

SPLITS = ("train", "validation", "test")
WORDS = 40  # of a text that are kept: more than the models are shown


@dataclass(frozen=True)
class Example:
    """A text and its class. group: the document it is from, which lies in one split alone.

    An empty group: the text stands for itself.
    """

    text: str
    label: str
    group: str = ""


Splits = dict[str, list[Example]]


def opening(text: str, words: int = WORDS) -> str:
    """Return the first words of a text, with one space between them."""
    return " ".join(text.split()[:words])


def key(text: str) -> str:
    """Return what two texts have in common that count as the same: letters and digits."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def unique(examples: Iterable[Example]) -> list[Example]:
    """Return the openings of the texts, each once; none that has two labels, or no word."""
    found: dict[str, Example] = {}
    labels = defaultdict(set)
    for example in examples:
        text = opening(example.text)
        name = key(text)
        labels[name].add(example.label)
        found.setdefault(name, Example(text, example.label, example.group))
    return [example for name, example in found.items() if name and len(labels[name]) == 1]


def order(seed: str, items: Iterable[str]) -> list[str]:
    """Return the items in the order of their hashes."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}\0{item}".encode()).digest())


def quotas(available: Mapping[str, int], size: int) -> dict[str, int]:
    """Return how many rows of each class make up ``size``: as equal as what is available allows."""
    left, given = size, {}
    for done, name in enumerate(sorted(available, key=lambda name: (available[name], name))):
        given[name] = min(available[name], left // (len(available) - done))
        left -= given[name]
    return given


def deal(examples: Iterable[Example], sizes: Mapping[str, int], seed: str) -> Splits:
    """Return rows of each split, up to ``sizes``, with no group in two splits.

    The groups of each class (a group is of the class that most of its rows have) go one by one to
    the split that is furthest behind its share; of what a split then holds, rows are taken so that
    its classes are as equal as can be. ValueError if a class has no row in some split.
    """
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in unique(examples):
        groups[example.group or f"\0{key(example.text)}"].append(example)
    classes: dict[str, list[str]] = defaultdict(list)
    for name, members in groups.items():
        counts = Counter(member.label for member in members)
        classes[min(counts, key=lambda label: (-counts[label], label))].append(name)
    bags: Splits = {split: [] for split in sizes}
    for label in sorted(classes):
        rows = dict.fromkeys(sizes, 0)
        for name in order(seed, classes[label]):
            split = min(sizes, key=lambda split: rows[split] / sizes[split])
            rows[split] += len(groups[name])
            bags[split] += groups[name]
    drawn = {split: _draw(bag, sizes[split], f"{seed}/{split}") for split, bag in bags.items()}
    for split, members in drawn.items():
        missing = {e.label for bag in bags.values() for e in bag} - {e.label for e in members}
        if missing:
            raise ValueError(f"{seed}: no {split} row is of class {', '.join(sorted(missing))}.")
    return drawn


def deal_answers(examples: Iterable[Example], sizes: Mapping[str, int], seed: str) -> Splits:
    """Return rows of each split whose labels are answers in free words, and no classes."""
    found = unique(examples)
    answers = {example.text: example.label for example in found}
    dealt = deal((replace(example, label="") for example in found), sizes, seed)
    return {
        split: [replace(example, label=answers[example.text]) for example in rows]
        for split, rows in dealt.items()
    }


def _draw(bag: Sequence[Example], size: int, seed: str) -> list[Example]:
    classes: dict[str, dict[str, Example]] = defaultdict(dict)
    for example in bag:
        classes[example.label][example.text] = example
    counts = quotas({label: len(members) for label, members in classes.items()}, size)
    kept = {
        text: members[text]
        for label, members in classes.items()
        for text in order(seed, members)[: counts[label]]
    }
    return [kept[text] for text in order(seed, kept)]
