"""The vocabulary of a merged model, where it is not simply that of the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from breadcrumbs.checkpoint.tensors import Checkpoint


@dataclass(frozen=True)
class Words:
    """The vocabulary of a merged model.

    rows: of its embedding. tokenizer: the model whose tokenizer is written; None for that to which
    steps are added. ids: the numbers of the tokens that this one lacks; added: how they are found
    in a text; pieces: which of them are pieces of another tokenizer. moved: by their number in the
    model to which steps are added, those of tokens that have another one. said: a line about it.
    """

    rows: int
    tokenizer: Checkpoint | None
    ids: Mapping[str, int]
    added: Mapping[str, Mapping[str, bool]]
    pieces: frozenset[str]
    moved: Mapping[int, int]
    said: str
