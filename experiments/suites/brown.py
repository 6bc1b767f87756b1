"""The Brown corpus: pairs of sentences, and what kind of prose their document is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from experiments.suites.splits import Example

SENTENCES = 2  # of one text
IMAGINATIVE = ("fiction", "mystery", "science_fiction", "adventure", "romance", "humor")
# The corpus's tags of finite verbs; that of the bare form is also an infinitive's, and is no sign.
PAST = {"vbd", "bed", "bedz", "hvd", "dod"}
PRESENT = {"vbz", "bez", "ber", "bem", "hvz", "doz"}
MODAL = {"md"}


def prose(folder: Path) -> Iterator[Example]:
    """Yield pairs of sentences, ``imaginative`` or ``informative``; the group is the document.

    (Its 15 genres cannot be told apart in documents that were not trained on: a model that is
    fine-tuned on them gains nothing.)
    """
    for document, genre, tagged in documents(folder):
        kind = "imaginative" if genre in IMAGINATIVE else "informative"
        said = [text for text, _ in sentences(tagged)]
        for start in range(0, len(said) - SENTENCES + 1, SENTENCES):
            text = " ".join(said[start : start + SENTENCES])
            yield Example(text, kind, document)


def tenses(folder: Path) -> Iterator[Example]:
    """Yield sentences whose finite verbs all are in the ``past`` or all in the ``present`` tense.

    Sentences with a modal verb are left out. The group is the document.
    """
    for document, _, tagged in documents(folder):
        for text, tags in sentences(tagged):
            past, present = tags & PAST, tags & PRESENT
            if len(text.split()) >= 6 and not tags & MODAL and bool(past) != bool(present):
                yield Example(text, "past" if past else "present", document)


def verbs(folder: Path) -> Iterator[Example]:
    """Yield sentences whose one finite verb is in the past tense, and that verb, as it is written.

    Sentences with a form of be, have or do are left out. The group is the document.
    """
    for document, _, tagged in documents(folder):
        for text, words in said(tagged):
            finite = [(word, tags) for word, tags in words if tags & (PAST | PRESENT | MODAL)]
            if 6 <= len(words) <= 20 and len(finite) == 1:
                (verb, tags), every = finite[0], [word for word, _ in words]
                if "vbd" in tags and verb.isalpha() and every.count(verb) == 1:
                    yield Example(text, verb, document)


def documents(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the genre and the tagged text of each document."""
    for line in (folder / "package/cats.txt").read_text().splitlines():
        document, genre = line.split()
        path = folder / "package" / document
        yield document, genre, path.read_text(encoding="latin-1")


def sentences(tagged: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each sentence of a document, and the tags of its words.

    The document has a sentence a line, ``word/tag``; the text is as it was written. A tag stands
    without what marks titles, headlines, negation and contractions.
    """
    for text, words in said(tagged):
        yield text, {part for _, tags in words for part in tags}


def said(tagged: str) -> Iterator[tuple[str, list[tuple[str, set[str]]]]]:
    """Yield each sentence of a document, and its words, each with the parts of its tag."""
    for line in tagged.splitlines():
        pairs = [word.rpartition("/") for word in line.split()]
        if pairs:
            text = " ".join(word for word, _, _ in pairs).replace("``", '"').replace("''", '"')
            text = re.sub(r" ([.,;:?!)])", r"\1", text)
            text = re.sub(r"([(]) ", r"\1", text)
            # The corpus closes a sentence with the mark and again with the sentence's end.
            text = re.sub(r"([;:?!])\1", r"\1", text)
            text = re.sub(r'" ([^"]*?) ?"', r'"\1"', text)
            yield text, [(word, set(re.split(r"[-+*]", tag))) for word, _, tag in pairs]
