"""Texts of eight kinds, and a mixture of other kinds that bases are trained on.

From the Brown corpus, and from the sources and the manual that come with Python.
"""

from __future__ import annotations

import pydoc_data.topics
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
from experiments.suites import brown, packages
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

GENRES = ("news", "learned", "romance", "religion", "government", "mystery")
TASKS = (*GENRES, "code", "manual")
MIXTURE = ("hobbies", "lore", "belles_lettres", "adventure")
#: Characters of each text.
MOST = 400_000


def texts(cache: Path) -> dict[str, str]:
    """Return a text for each task, and `base`: of other kinds, with a little code."""
    found: dict[str, list[str]] = {}
    for _, genre, tagged in brown.documents(packages.folder("brown", cache)):
        if genre in (*GENRES, *MIXTURE):
            lines = [text for text, _ in brown.sentences(tagged)]
            found.setdefault(genre, []).append("\n".join(lines))
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = [path.read_text("utf-8") for path in sorted(library.glob("[a-m]*.py"))]
    found["code"] = sources[0::2]
    found["manual"] = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    mixed = [part[: MOST // 4] for genre in MIXTURE for part in found[genre][:20]]
    found["base"] = [*mixed, "\n".join(sources[1::2])[: MOST // 4]]
    return {name: "\n\n".join(found[name])[: MOST * (1 + (name == "base"))] for name in found}


def tokenizer(text: str, size: int) -> Tokenizer:
    """Return a byte-level BPE of ``size`` tokens, trained on a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        text.split("\n"),
        trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False),
    )
    return made


def rows(made: Tokenizer, text: str, length: int) -> torch.Tensor:
    """Return the tokens of a text in rows, (n, length)."""
    ids: Sequence[int] = made.encode(text).ids
    n = len(ids) // length
    return torch.tensor(ids[: n * length]).reshape(n, length)


def split(every: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows to train on, and the last tenth, held out."""
    n = len(every) * 9 // 10
    return every[:n], every[n:]


def some(every: torch.Tensor, most: int) -> torch.Tensor:
    """Return ``most`` rows, or all, spread evenly: of many documents, not of the first."""
    n = len(every)
    return every[[i * n // most for i in range(most)]] if n > most else every
