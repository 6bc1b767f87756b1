"""The Brown corpus: pairs of sentences, and the genre of the document that they are from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from experiments.suites.splits import Example

SENTENCES = 2  # of one text


def genres(folder: Path) -> Iterator[Example]:
    """Yield consecutive pairs of sentences of each document; the group is the document."""
    for line in (folder / "package/cats.txt").read_text().splitlines():
        document, genre = line.split()
        said = list(sentences((folder / "package" / document).read_text(encoding="latin-1")))
        for start in range(0, len(said) - SENTENCES + 1, SENTENCES):
            yield Example(" ".join(said[start : start + SENTENCES]), genre, document)


def sentences(tagged: str) -> Iterator[str]:
    """Yield the sentences of a tagged document (one a line, ``word/tag``) as they were written."""
    for line in tagged.splitlines():
        words = [word.rsplit("/", 1)[0] for word in line.split()]
        if words:
            text = " ".join(words).replace("``", '"').replace("''", '"')
            text = re.sub(r" ([.,;:?!)])", r"\1", text)
            text = re.sub(r"([(]) ", r"\1", text)
            # The corpus closes a sentence with the mark and again with the sentence's end.
            text = re.sub(r"([;:?!])\1", r"\1", text)
            yield re.sub(r'" ([^"]*?) ?"', r'"\1"', text)
