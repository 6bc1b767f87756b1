"""ChatterBot's corpus: short things that people say, in many languages, on many topics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from experiments.suites.splits import Example

#: Of several spellings or mixtures of one language.
LEFT_OUT = ("hinglish", "traditionalchinese")


def topics(folder: Path, names: Iterable[str]) -> Iterator[Example]:
    """Yield what is said in English on these topics; the group is the conversation."""
    for topic in names:
        path = folder / f"chatterbot_corpus/data/english/{topic}.yml"
        for number, said in enumerate(conversations(path.read_text(encoding="utf-8"))):
            for text in said:
                if len(text.split()) >= 3:
                    yield Example(text, topic, f"{topic} {number}")


def languages(folder: Path, least: int) -> Iterator[Example]:
    """Yield what is said in the languages of which there are at least so many sentences."""
    for place in sorted((folder / "chatterbot_corpus/data").iterdir()):
        if place.is_dir() and place.name not in LEFT_OUT:
            said = {
                text: None
                for path in sorted(place.glob("*.yml"))
                for turns in conversations(path.read_text(encoding="utf-8"))
                for text in turns
                if len(text) >= 12
            }
            if len(said) >= least:
                yield from (Example(text, place.name) for text in said)


def conversations(text: str) -> Iterator[list[str]]:
    """Yield the turns of each conversation of a file of the corpus."""
    for turns in yaml.safe_load(text)["conversations"]:
        yield [str(turn) for turn in turns if turn]
